"""Drives a server through livekit-api: rooms, dispatches, ingress, SIP, egress. Prints `done`."""

import asyncio
import sys

from livekit import api


async def rooms(server: api.LiveKitAPI) -> None:
    room = await server.room.create_room(api.CreateRoomRequest(name="one", empty_timeout=60))
    assert room.sid.startswith("RM_") and room.empty_timeout == 60, room
    changed = await server.room.update_room_metadata(
        api.UpdateRoomMetadataRequest(room="one", metadata="m")
    )
    assert changed.metadata == "m", changed
    listed = await server.room.list_rooms(api.ListRoomsRequest(names=["one"]))
    assert [room.name for room in listed.rooms] == ["one"], listed
    try:
        await server.room.get_participant(api.RoomParticipantIdentity(room="one", identity="ghost"))
        raise AssertionError("a participant that is not there was found")
    except api.TwirpError as error:
        assert (error.code, error.status) == ("not_found", 404), error
    await server.room.delete_room(api.DeleteRoomRequest(room="one"))


async def dispatches(server: api.LiveKitAPI) -> None:
    service = server.agent_dispatch
    made = await service.create_dispatch(
        api.CreateAgentDispatchRequest(agent_name="helper", room="room", metadata="m")
    )
    # A room always has one for agents without a name.
    assert sorted(each.agent_name for each in await service.list_dispatch("room")) == ["", "helper"]
    assert (await service.get_dispatch(made.id, "room")).agent_name == "helper"
    await service.delete_dispatch(made.id, "room")
    assert [each.agent_name for each in await service.list_dispatch("room")] == [""]


async def ingress(server: api.LiveKitAPI) -> None:
    service = server.ingress
    made = await service.create_ingress(
        api.CreateIngressRequest(
            input_type=api.IngressInput.WHIP_INPUT,
            name="one",
            room_name="room",
            participant_identity="camera",
        )
    )
    assert made.ingress_id.startswith("IN_") and made.url.startswith("http://127.0.0.1/w"), made
    listed = await service.list_ingress(api.ListIngressRequest(room_name="room"))
    assert [item.ingress_id for item in listed.items] == [made.ingress_id], listed
    await service.delete_ingress(api.DeleteIngressRequest(ingress_id=made.ingress_id))
    assert not (await service.list_ingress(api.ListIngressRequest())).items


async def sip(server: api.LiveKitAPI) -> None:
    service = server.sip
    inbound = await service.create_inbound_trunk(
        api.CreateSIPInboundTrunkRequest(
            trunk=api.SIPInboundTrunkInfo(name="in", numbers=["+15550100"])
        )
    )
    renamed = await service.update_inbound_trunk_fields(inbound.sip_trunk_id, name="renamed")
    assert (renamed.name, list(renamed.numbers)) == ("renamed", ["+15550100"]), renamed
    rule = await service.create_dispatch_rule(
        api.CreateSIPDispatchRuleRequest(
            rule=api.SIPDispatchRule(
                dispatch_rule_individual=api.SIPDispatchRuleIndividual(room_prefix="call-")
            ),
            trunk_ids=[inbound.sip_trunk_id],
        )
    )
    rules = await service.list_dispatch_rule(api.ListSIPDispatchRuleRequest())
    assert [item.sip_dispatch_rule_id for item in rules.items] == [rule.sip_dispatch_rule_id]
    await service.delete_dispatch_rule(
        api.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=rule.sip_dispatch_rule_id)
    )
    await service.delete_trunk(api.DeleteSIPTrunkRequest(sip_trunk_id=inbound.sip_trunk_id))
    assert not (await service.list_inbound_trunk(api.ListSIPInboundTrunkRequest())).items


async def egress(server: api.LiveKitAPI) -> None:
    try:
        await server.egress.list_egress(api.ListEgressRequest())
        raise AssertionError("an egress service answered")
    except api.TwirpError as error:
        assert error.status >= 500, error


async def main(url: str, key: str, secret: str) -> None:
    async with api.LiveKitAPI(url, key, secret) as server:
        for part in (rooms, dispatches, ingress, sip, egress):
            await part(server)
    print("done")


asyncio.run(main(*sys.argv[1:]))
