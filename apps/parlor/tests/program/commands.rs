//! The commands that ask a running server, as their user types them.

use crate::server::{SECRET, Server, directory, free_port, join, parlor, token};
use serde_json::Value;

struct Shell {
    server: Server,
    url: String,
}

impl Shell {
    /// Whether it went well, and what was printed.
    fn type_in(&self, line: &str) -> (bool, String) {
        let mut arguments: Vec<&str> = line.split_whitespace().collect();
        arguments.extend(["--url", &self.url, "--api-key", "k", "--api-secret", SECRET]);
        let output = parlor(&arguments);
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!printed.contains(SECRET) && !printed.contains("turn_password"), "{printed}");
        (output.status.success(), printed)
    }
}

#[test]
fn rooms_and_participants_are_looked_at_and_ended() {
    let config = directory("commands").join("config.yaml");
    std::fs::write(&config, format!("keys: {{k: {SECRET}}}\n")).unwrap();
    let server = Server::start(&config, free_port(), &[]);
    let shell = Shell { url: format!("http://127.0.0.1:{}", server.port), server };
    let (good, made) = shell.type_in("room create demo --empty-timeout 600 --metadata m");
    assert!(good && made.contains("RM_") && made.contains("demo"), "{made}");
    let (good, shown) = shell.type_in("room list demo --json");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(good && shown["rooms"][0]["metadata"] == "m", "{shown}");
    assert_eq!(shell.type_in("participant list demo").1.lines().count(), 1, "nobody");

    let of_ann = token(SECRET, &["--join", "--room", "demo", "--identity", "ann"]);
    let enter = || join(shell.server.port, &of_ann);
    let (status, _ann) = enter();
    assert_eq!(status, 101);
    let (_, list) = shell.type_in("participant list demo");
    assert!(list.contains("ann") && list.contains("PA_"), "{list}");
    let (_, list) = shell.type_in("participant list demo --json");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["participants"][0]["identity"], "ann");
    assert!(shell.type_in("participant get demo ann").1.contains("\"identity\": \"ann\""));
    assert!(shell.type_in("participant remove demo ann").0);
    assert!(!shell.type_in("participant get demo ann").0);

    // Who is removed can come again, unless the token is barred.
    let (status, _ann) = enter();
    assert_eq!(status, 101);
    assert_eq!(
        shell.type_in("participant remove demo ann --revoke"),
        (true, "removed ann\n".into())
    );
    assert_eq!(enter().0, 401);

    assert!(shell.type_in("room delete demo").0);
    let (good, said) = shell.type_in("room delete demo");
    assert!(!good && said.contains("(404 Not Found): requested room does not exist"), "{said}");
    let (good, said) = shell.type_in("participant list");
    assert!(!good && said.contains("<ROOM>"), "{said}");
}
