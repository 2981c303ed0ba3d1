//! The real vipctl against the real socket server, with scripted answers: exit codes and both forms of
//! output are a contract with scripts.

// A panic is how a test fails; clippy knows only functions marked as tests, not their helpers.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test here")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::{runtime::Runtime, sync::mpsc};
use vipd::{
    api::{
        AddressPage, Answer, ApiError, DatapathStatus, ErrorKind, Event, EventFilter, Given, InterfaceChoice,
        LeaseStatus, ListedAddress, PingListOf, Request, ResourceStatus, Run, Selection, Status, SubnetOf,
        SubnetStatus,
        server::{Backend, Server},
    },
    model::Accept,
};

/// Answers by what is asked and remembers it.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<Request>>,
}

#[async_trait]
impl Backend for Script {
    async fn handle(&self, request: Request, out: mpsc::Sender<Answer>) -> Answer {
        self.asked.lock().unwrap().push(request.clone());
        let error = |kind| Answer::Error(ApiError::new(kind, "the reason; the remedy"));
        match request {
            Request::Delete { tag, .. } => match tag.as_str() {
                "failed" => error(ErrorKind::Failed),
                "usage" => error(ErrorKind::Usage),
                "denied" => error(ErrorKind::NoPermission),
                "refused" => error(ErrorKind::Refused),
                "no-quorum" => error(ErrorKind::NoQuorum),
                _ => Answer::Done { message: format!("{tag} is deleted") },
            },
            Request::Events { follow, filter } => {
                for number in 4 - filter.last.unwrap_or(3).min(3) as u64..=3 {
                    let _ = out.send(Answer::Event(event(number))).await;
                }
                if follow {
                    out.closed().await;
                }
                Answer::Done { message: String::new() }
            }
            Request::Interfaces { .. } => Answer::Interfaces(vec![InterfaceChoice {
                name: "eth0".into(),
                allowed: true,
                reason: "is up".into(),
            }]),
            Request::Addresses { offset, .. } => Answer::Addresses(AddressPage {
                total: 3,
                offset,
                addresses: vec![ListedAddress {
                    tag: "shop".parse().unwrap(),
                    address: "10.0.0.9/24".parse().unwrap(),
                }],
            }),
            Request::PingListShow { .. } => Answer::PingLists(vec![PingListOf {
                node: "a".into(),
                subnet: "10.0.0.0/24".parse().unwrap(),
                addresses: vec!["10.0.0.254".parse().unwrap()],
                hint: Some("no resource has it".into()),
            }]),
            Request::StatusOf(selection) => Answer::Status(Box::new(status(&selection))),
            Request::SubnetList => Answer::Subnets(vec![SubnetOf {
                subnet: "10.1.0.0/24".parse().unwrap(),
                targets: vec![],
                interval_ms: 2000,
                fall: 3,
                rise: 2,
                needed_by: vec![],
                nodes: vec![SubnetStatus {
                    subnet: "10.1.0.0/24".parse().unwrap(),
                    node: "a".into(),
                    state: "down".into(),
                    reason: Some("eth1: it has no carrier".into()),
                    targets: vec![],
                }],
            }]),
            Request::ClusterToken => Answer::Token("secret".into()),
            _ => Answer::Done { message: "done".into() },
        }
    }
}

/// A set and a run of single ones, as far as they are wanted.
fn status(selection: &Selection) -> Status {
    let entry = |address: &str, addresses, span: &str, run| ResourceStatus {
        tag: format!("ip-{address}").parse().unwrap(),
        kind: "ip".into(),
        address: format!("{address}/16").parse().unwrap(),
        addresses,
        span: span.into(),
        accept: Accept::Anyip,
        accept_reason: "an operator's choice".into(),
        state: "ISP".into(),
        owner: Some("a".into()),
        epoch: 1,
        device: None,
        nodes: vec![],
        choice: None,
        packets: None,
        cloud: None,
        run,
    };
    let run = Run {
        count: 999,
        last_tag: "ip-10.8.3.231".parse().unwrap(),
        last_address: "10.8.3.231/16".parse().unwrap(),
    };
    let mut resources = vec![
        entry("10.9.0.1", 65_534, "10.9.0.1-10.9.255.254/16", None),
        entry("10.8.0.1", 1, "10.8.0.1/16", selection.join_above.map(|_| run)),
    ];
    resources.truncate(selection.limit.unwrap_or(9));
    Status {
        node: "a".into(),
        version: "0".into(),
        profile: "default".into(),
        cluster: None,
        lease: LeaseStatus { valid: true, remaining_ms: 1, duration_ms: 1, epoch: 1 },
        datapath: DatapathStatus { guard: "kernel".into(), reason: None, verdicts: vec![] },
        nodes: vec![],
        resources,
        states: [("ISP".to_owned(), 1000)].into(),
        hierarchies: vec![],
        interfaces: vec![],
        subnets: vec![],
        conflicts: vec![],
        warnings: vec![],
    }
}

fn event(number: u64) -> Event {
    Event {
        number,
        time: "2026-01-02T03:04:05.000000Z".into(),
        boot_ns: number,
        tag: None,
        address: None,
        epoch: None,
        kind: "lease.expired".into(),
        message: "the lease ran out".into(),
    }
}

struct Daemon {
    script: Arc<Script>,
    socket: PathBuf,
    _runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("vipd.sock");
        let script = Arc::new(Script::default());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(async { Server::bind(socket.clone(), None) }).unwrap();
        runtime.spawn(server.serve(script.clone()));
        Self { script, socket, _runtime: runtime, _dir: dir }
    }

    fn vipctl(&self, arguments: &str) -> Output {
        run(&self.socket, arguments)
    }

    fn asked(&self) -> Request {
        self.script.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn command(socket: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipctl"));
    command.env("VIPCTL_SOCKET", socket).args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

fn run(socket: &Path, arguments: &str) -> Output {
    command(socket, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn exit_codes_and_messages() {
    let daemon = Daemon::start();
    for (arguments, code) in [
        ("delete good", 0),
        ("delete failed", 1),
        ("delete usage", 2),
        ("delete denied", 3),
        ("delete refused", 4),
        ("delete no-quorum", 5),
        ("no-such-verb", 2),
        ("--help", 0),
        ("--version", 0),
    ] {
        let out = daemon.vipctl(arguments);
        assert_eq!(out.status.code(), Some(code), "{arguments}: {out:?}");
        // The reason is on stderr, the result on stdout, never both.
        assert_eq!(out.stderr.is_empty(), code == 0, "{arguments}: {out:?}");
        assert_eq!(out.stdout.is_empty(), code != 0, "{arguments}: {out:?}");
    }
    assert_eq!(text(&daemon.vipctl("delete refused").stderr), "vipctl: the reason; the remedy\n");
}

#[test]
fn json_is_one_document_on_stdout_and_errors_are_one_on_stderr() {
    let daemon = Daemon::start();
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(parse(&daemon.vipctl("--json delete good").stdout)["message"], "good is deleted");
    assert_eq!(parse(&daemon.vipctl("cluster token --json").stdout)["token"], "secret");
    assert_eq!(parse(&daemon.vipctl("--json interfaces").stdout)[0]["name"], "eth0");
    assert_eq!(parse(&daemon.vipctl("--json events").stdout).as_array().unwrap().len(), 3);
    let error = parse(&daemon.vipctl("--json delete refused").stderr);
    assert_eq!(error["error"]["kind"], "refused");
    assert_eq!(error["error"]["message"], "the reason; the remedy");
    assert_eq!(parse(&daemon.vipctl("--json no-such-verb").stderr)["error"]["kind"], "usage");
    let absent = run(Path::new("/nonexistent/vipd.sock"), "--json status");
    assert_eq!(absent.status.code(), Some(3));
    assert_eq!(parse(&absent.stderr)["error"]["kind"], "no-permission");
}

#[test]
fn arguments_become_the_request_that_is_meant() {
    let daemon = Daemon::start();
    daemon.vipctl("create ip www/24 --dev eth0 --dev eth1 --tag web --priority 5 --switchback automatic --extend-to b --no-wait");
    let json = serde_json::to_value(daemon.asked()).unwrap();
    let expected = serde_json::json!({
        "request": "create-ip", "addresses": [{"argument": "www/24"}], "netmask": null, "each": false, "except": [],
        "group": null, "separate": false, "accept": null, "devices": ["eth0", "eth1"], "tag": "web",
        "priority": 5, "switchback": "automatic", "extend_to": ["b"], "force": false, "wait": false,
    });
    assert_eq!(json, expected);
    daemon.vipctl("in-service web --on b");
    let wanted =
        Request::InService { tag: "web".parse().unwrap(), on: Some("b".into()), hold: None, wait: true };
    assert_eq!(daemon.asked(), wanted);
    daemon.vipctl("set web priority=3 devices=eth0,eth1 --node b");
    let settings = vec![("priority".into(), "3".into()), ("devices".into(), "eth0,eth1".into())];
    assert_eq!(
        daemon.asked(),
        Request::Set { tag: "web".parse().unwrap(), node: Some("b".into()), settings }
    );
}

#[test]
fn addresses_come_from_arguments_files_and_stdin() {
    use std::io::Write;
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    std::fs::write(&list, "10.0.0.9\n").unwrap();
    let name = list.display().to_string();
    daemon.vipctl(&format!(
        "create ip 10.0.0.1-10.0.0.5 @{name} --each --except 10.0.0.2,10.0.0.4-10.0.0.5 --group shop --accept route"
    ));
    let json = serde_json::to_value(daemon.asked()).unwrap();
    let addresses = serde_json::json!([
        {"argument": "10.0.0.1-10.0.0.5"}, {"file": {"name": name, "text": "10.0.0.9\n"}}
    ]);
    assert_eq!(json["addresses"], addresses);
    assert_eq!(json["except"], serde_json::json!(["10.0.0.2", "10.0.0.4-10.0.0.5"]));
    let flags = ["each", "group", "separate", "accept"].map(|key| json[key].clone());
    assert_eq!(serde_json::json!(flags), serde_json::json!([true, "shop", false, "route"]));
    let absent = daemon.vipctl("create ip @/nonexistent/list");
    assert_eq!(absent.status.code(), Some(2), "{absent:?}");

    let mut child = command(&daemon.socket, "delete shop --address @- --address 10.0.0.3")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"10.0.0.1\n").unwrap();
    assert!(child.wait().unwrap().success());
    let expected = Request::RemoveAddresses {
        tag: "shop".parse().unwrap(),
        addresses: vec![
            Given::File { name: "stdin".into(), text: "10.0.0.1\n".into() },
            Given::Argument("10.0.0.3".into()),
        ],
        wait: true,
    };
    assert_eq!(daemon.asked(), expected);
}

#[test]
fn a_file_of_65536_addresses_passes_the_socket() {
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list");
    let text: String =
        (0..65_536u32).map(|n| format!("2001:db8:1234:5678::{:x}:{:x}/64\n", n >> 8, n & 255)).collect();
    std::fs::write(&list, &text).unwrap();
    let out = daemon.vipctl(&format!("create ip @{} --separate", list.display()));
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let Request::CreateIp(asked) = daemon.asked() else { panic!() };
    assert!(matches!(&asked.addresses[..], [Given::File { text: sent, .. }] if *sent == text));
}

#[test]
fn what_is_asked_of_lists_events_and_status() {
    let daemon = Daemon::start();
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let listed = daemon.vipctl("list shop --limit 1 --offset 2");
    assert_eq!(
        (text(&listed.stdout).as_str(), text(&listed.stderr).as_str()),
        ("10.0.0.9/24\n", "1 of 3 addresses, after 2\n")
    );
    let expected = Request::Addresses { tag: Some("shop".parse().unwrap()), limit: Some(1), offset: 2 };
    assert_eq!(daemon.asked(), expected);
    assert_eq!(text(&daemon.vipctl("list").stdout), "10.0.0.9/24\tshop\n");
    assert_eq!(parse(&daemon.vipctl("list --json").stdout)["total"], 3);

    assert_eq!(text(&daemon.vipctl("events --last 2 --kind lease --tag shop").stdout).lines().count(), 2);
    let filter =
        EventFilter { last: Some(2), kind: Some("lease".into()), tag: Some("shop".parse().unwrap()) };
    assert_eq!(daemon.asked(), Request::Events { follow: false, filter });
    daemon.vipctl("events");
    assert!(matches!(daemon.asked(), Request::Events { filter: EventFilter { last: Some(50), .. }, .. }));

    let page =
        text(&daemon.vipctl("status --resources ip-* --owner a --state isp --limit 1 --offset 0").stdout);
    let expected = Selection {
        pattern: Some("ip-*".into()),
        owner: Some("a".into()),
        state: Some("isp".into()),
        join_above: Some(40),
        limit: Some(1),
        offset: 0,
    };
    assert_eq!(daemon.asked(), Request::StatusOf(expected));
    assert!(page.starts_with("1,000 resources: 1,000 ISP\nRESOURCE"), "{page}");
    assert!(
        page.contains("65,534 addresses 10.9.0.1-10.9.255.254/16 (anyip)")
            && page.contains("999 of them are not shown"),
        "{page}"
    );
    assert!(text(&daemon.vipctl("status -r").stdout).contains("ip-10.8.0.1 .. ip-10.8.3.231 (999)"));
    // A script gets every resource, unless it asks for some.
    let all = parse(&daemon.vipctl("status --json").stdout);
    assert!(all["resources"][1].get("run").is_none() && all["states"]["ISP"] == 1000, "{all}");
    assert_eq!(daemon.asked(), Request::StatusOf(Selection::default()));
    assert_eq!(
        parse(&daemon.vipctl("status --json --limit 1").stdout)["resources"].as_array().unwrap().len(),
        1
    );
    assert_eq!(daemon.vipctl("status --state lost").status.code(), Some(2));

    let lists = text(&daemon.vipctl("ping-list show").stdout);
    assert!(lists.ends_with("hint: no resource has it\n"), "{lists}");
    assert_eq!(parse(&daemon.vipctl("ping-list show --json").stdout)[0]["hint"], "no resource has it");
}

#[test]
fn subnets_are_monitored_as_asked() {
    let daemon = Daemon::start();
    daemon.vipctl("subnet monitor 10.1.0.0/24 --target 10.1.0.9 --interval 0.5 --fall 4");
    let expected = vipd::api::MonitorSubnet {
        subnet: "10.1.0.0/24".parse().unwrap(),
        targets: Some(vec!["10.1.0.9".parse().unwrap()]),
        interval: Some(std::time::Duration::from_millis(500)),
        fall: Some(4),
        rise: None,
    };
    assert_eq!(daemon.asked(), Request::SubnetMonitor(expected.clone()));
    daemon.vipctl("subnet monitor 10.1.0.0/24 --target peers --rise 3");
    let (targets, interval, fall, rise) = (Some(vec![]), None, None, Some(3));
    let peers = vipd::api::MonitorSubnet { targets, interval, fall, rise, ..expected };
    assert_eq!(daemon.asked(), Request::SubnetMonitor(peers));
    daemon.vipctl("subnet unmonitor 10.1.0.0/24");
    assert_eq!(daemon.asked(), Request::SubnetUnmonitor { subnet: "10.1.0.0/24".parse().unwrap() });
    let out = daemon.vipctl("subnet list --json");
    assert_eq!(serde_json::from_slice::<Value>(&out.stdout).unwrap()[0]["nodes"][0]["state"], "down");
}

#[test]
fn a_token_may_come_from_stdin() {
    use std::io::Write;
    let daemon = Daemon::start();
    let mut child = command(&daemon.socket, "cluster join 192.0.2.1 --token -")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"  secret\n").unwrap();
    assert!(child.wait().unwrap().success());
    let expected =
        Request::ClusterJoin { address: "192.0.2.1:7411".parse().unwrap(), token: "secret".into() };
    assert_eq!(daemon.asked(), expected);
}

#[test]
fn following_streams_and_a_reader_that_goes_is_no_error() {
    use std::io::{BufRead, BufReader};
    let daemon = Daemon::start();
    let mut child = command(&daemon.socket, "events --follow --json").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        let event: Event = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event.number, number);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let out = Command::new("sh")
        .args(["-c", "\"$0\" --help | head -n 1; exit 0", env!("CARGO_BIN_EXE_vipctl")])
        .output()
        .unwrap();
    assert!(!text(&out.stderr).contains("panicked"), "{out:?}");
}

/// Every verb about hierarchies, nodes and constraints, as the daemon is asked.
#[test]
fn verbs_of_hierarchies_and_policies_become_requests() {
    let daemon = Daemon::start();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (arguments, request) in [
        ("depend web ip", r#"{"request":"depend","force":false,"parent":"web","child":"ip"}"#),
        ("undepend web ip", r#"{"request":"undepend","force":false,"parent":"web","child":"ip"}"#),
        ("unextend web --from b", r#"{"request":"unextend","force":false,"tag":"web","from":"b"}"#),
        (
            "delete web --hierarchy --no-wait",
            r#"{"request":"delete","force":false,"tag":"web","hierarchy":true,"wait":false}"#,
        ),
        ("clear web", r#"{"request":"clear","tag":"web"}"#),
        ("cleanup web --node b", r#"{"request":"cleanup","tag":"web","node":"b"}"#),
        ("node standby b", r#"{"request":"node-order","node":"b","order":"standby","wait":true}"#),
        ("node standby b --no-wait", r#"{"request":"node-order","node":"b","order":"standby","wait":false}"#),
        ("node online b", r#"{"request":"node-order","node":"b","order":"online","wait":false}"#),
        (
            "node maintenance b on",
            r#"{"request":"node-order","node":"b","order":{"maintenance":true},"wait":false}"#,
        ),
        (
            "constraint add location web b -INFINITY",
            r#"{"request":"constraint-add","id":null,
                "constraint":{"location":{"tag":"web","node":"b","score":"-INFINITY"}}}"#,
        ),
        (
            "constraint add colocation web ip -20 --id apart",
            r#"{"request":"constraint-add","id":"apart",
                "constraint":{"colocation":{"tag":"web","with":"ip","score":"-20"}}}"#,
        ),
        (
            "constraint add order ip web --optional",
            r#"{"request":"constraint-add","id":null,
                "constraint":{"order":{"first":"ip","then":"web","optional":true}}}"#,
        ),
        (
            "constraint add group ip fs web",
            r#"{"request":"constraint-add","id":null,"constraint":{"group":{"members":["ip","fs","web"]}}}"#,
        ),
        (
            "constraint add clone d1 d2 --per-node 2",
            r#"{"request":"constraint-add","id":null,"constraint":{"clone":{"members":["d1","d2"],"per_node":2}}}"#,
        ),
        ("cluster leave --move", r#"{"request":"cluster-leave","drain":true}"#),
        ("cluster leave --forget", r#"{"request":"cluster-forget"}"#),
        ("cluster remove c", r#"{"request":"cluster-remove","node":"c","heir":null,"force":false}"#),
        (
            "cluster remove c --replace-by d",
            r#"{"request":"cluster-remove","node":"c","heir":"d","force":false}"#,
        ),
        ("cluster readdress", r#"{"request":"cluster-readdress"}"#),
        ("constraint remove apart", r#"{"request":"constraint-remove","id":"apart"}"#),
        ("cluster set stickiness=-5", r#"{"request":"cluster-set","settings":[["stickiness","-5"]]}"#),
        ("connectivity remove 10.0.0.1", r#"{"request":"connectivity-remove","hosts":["10.0.0.1"]}"#),
        (
            "in-service web --on b --for 90",
            r#"{"request":"in-service","tag":"web","on":"b","hold":{"secs":90,"nanos":0},"wait":true}"#,
        ),
    ] {
        let out = daemon.vipctl(arguments);
        assert_eq!(out.status.code(), Some(0), "{arguments}: {out:?}");
        assert_eq!(serde_json::to_value(daemon.asked()).unwrap(), json(request), "{arguments}");
    }
    for arguments in [
        "depend web",
        "unextend web",
        "node maintenance b",
        "node standby",
        "constraint add location web b much",
        "constraint add group ip",
        "constraint add clone d1 d2 --per-node 0",
        "in-service web --for 10",
    ] {
        let out = daemon.vipctl(arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments}: {out:?}");
    }
}
