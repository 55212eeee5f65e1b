// Two pages that publish a tone and pictures, and hear and see each other.
import { hearsTone, seesPictures } from "./expect.js";

const SMALL = { width: 320, height: 180, fps: 15 };

export async function plays(alice, bob) {
  for (const who of [alice, bob]) await who.call("resetMedia");
  await hearsTone(bob, "alice/tone", 440);
  await hearsTone(alice, "bob/tone", 440);
  await seesPictures(bob, "alice/pictures", 15);
  await seesPictures(alice, "bob/pictures", 15);
}

export async function playing(t, server, single) {
  const alice = await t.joinPage(server, "alice", { singlePeerConnection: single });
  const bob = await t.joinPage(server, "bob", { singlePeerConnection: single });
  for (const who of [alice, bob]) {
    await who.call("publishTone", { hz: 440 });
    await who.call("publishPictures", SMALL);
  }
  await plays(alice, bob);
  return { server, alice, bob };
}
