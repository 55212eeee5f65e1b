//! `parlor serve --check`.

use crate::server::{SECRET, directory, parlor};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_configuration_is_checked_without_serving_it() {
    let directory = directory("check");
    let check = |yaml: &str, more: &[&str]| {
        let config = directory.join("config.yaml");
        std::fs::write(&config, yaml).unwrap();
        let mut arguments = vec!["serve", "--check", "--config", config.to_str().unwrap()];
        arguments.extend(more);
        let output = parlor(&arguments);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), format!("{out}{err}"))
    };
    let keys = format!("keys: {{k: {SECRET}}}\n");
    let (good, said) = check(&format!("{keys}turn: {{enabled: true}}\n"), &[]);
    assert!(good && said.contains("line 2: turn.enabled has no effect: there is"), "{said}");
    let (good, said) = check(&format!("{keys}rtc:\n  udp_prot: 1\n"), &[]);
    assert!(!good && said.contains("line 3") && said.contains("udp_port?"), "{said}");
    let loose = format!("{keys}rtc:\n  udp_prot: 1\n");
    let (good, said) = check(&loose, &["--disable-strict-config"]);
    assert!(good && said.contains("line 3: unknown key rtc.udp_prot; did you mean"), "{said}");
    let yaml = "port: 7890\nkeys: {short: hunter2}\nlimit: {max_metadata_size: 77}\n\
        rtc: {udp_port: 7900-7901, tcp_port: 7902, node_ip: 203.0.113.9, \
        turn_servers: [{host: t.example, port: 3478, protocol: udp, secret: hunter2}]}\n\
        webhook: {api_key: short, urls: [\"http://user:hunter2@hook.example/\"]}\n";
    let (good, said) = check(yaml, &["--prometheus.port", "7999"]);
    assert!(good && !said.contains("hunter2"), "{said}");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in [
        "port 7890 of every address",
        "Media (UDP) port 7900-7901, a thread for each",
        "(TCP) port 7902",
        "203.0.113.9 (not an address of this machine)",
        "turn:t.example:3478?transport=udp",
        "API keys short ",
        "1 URLs, signed with key short",
        "port 7999",
        "limit.max_metadata_size 77",
        "limit.max_room_name_length 256",
        "the secret of API key short is shorter",
        "webhooks are lost",
    ] {
        assert!(words.contains(told), "{told} in {said}");
    }
    let (good, said) = check(&format!("{keys}rtc: {{udp_port: 7900}}\n"), &[]);
    let shared = match std::thread::available_parallelism().unwrap().get() {
        1 => "port 7900\n".to_owned(),
        threads => format!("port 7900, shared by {threads} threads"),
    };
    assert!(good && said.contains(&shared), "{said}");
    let nowhere = format!("{keys}rtc: {{interfaces: {{includes: [nosuch0]}}}}\n");
    let (good, said) = check(&nowhere, &[]);
    assert!(!good && said.contains("rtc.interfaces") && said.contains("127.0.0.1"), "{said}");
    let (good, said) = check(&keys, &["--room.empty_timeout", "soon"]);
    assert!(!good && said.contains("room.empty_timeout"), "{said}");

    let key_file = directory.join("keys");
    std::fs::write(&key_file, format!("k: {SECRET}\n")).unwrap();
    let path = key_file.to_str().unwrap();
    let set_mode = |mode| {
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o644);
    let (good, said) = check("", &["--key-file", path]);
    assert!(!good && said.contains("chmod") && !said.contains(SECRET), "{said}");
    set_mode(0o640);
    assert!(check("", &["--key-file", path]).0);
}
