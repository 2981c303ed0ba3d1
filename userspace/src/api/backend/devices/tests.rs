use super::{
    super::fake::{FakeHost, assigned, link},
    *,
};
use crate::api::ErrorKind;

fn wanted(text: &str) -> Wanted {
    match text.split_once('/') {
        Some((a, p)) => Wanted { address: a.parse().unwrap(), prefix: Some(p.parse().unwrap()) },
        None => Wanted { address: text.parse().unwrap(), prefix: None },
    }
}

fn pick(host: &FakeHost, text: &str, devices: &[&str]) -> Result<(String, String)> {
    let devices: Vec<String> = devices.iter().map(|d| (*d).to_owned()).collect();
    let Wanted { address, prefix } = wanted(text);
    let subnet = Subnets::new(&host.assigned).of(address.into(), prefix)?;
    let net = with_length(address, subnet.prefix_len()).unwrap();
    choose(&host.links, &host.assigned, &[net], &devices).map(|d| (d.join(","), net.to_string()))
}

fn allowed(host: &FakeHost, text: &str) -> Vec<String> {
    let all = choices(&host.links, &host.assigned, Some(wanted(text)));
    all.into_iter().filter(|c| c.allowed).map(|c| c.name).collect()
}

#[test]
fn the_interface_of_the_subnet_and_its_length_are_the_default() {
    let host = FakeHost::usual();
    assert_eq!(pick(&host, "10.0.0.9", &[]).unwrap(), ("eth0".into(), "10.0.0.9/24".into()));
    assert_eq!(pick(&host, "10.1.2.3", &[]).unwrap(), ("eth1".into(), "10.1.2.3/16".into()));
    assert_eq!(pick(&host, "fd00::9", &[]).unwrap(), ("eth0".into(), "fd00::9/64".into()));
}

#[test]
fn a_subnet_in_service_binds_to_its_interface() {
    let host = FakeHost::usual();
    assert_eq!(allowed(&host, "10.0.0.9/24"), ["eth0"]);
    let e = pick(&host, "10.0.0.9/24", &["eth1"]).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Refused);
    assert!(e.message.contains("10.0.0.0/24 is in service on another interface"), "{}", e.message);
    assert!(e.message.contains("allowed: eth0"), "{}", e.message);
}

#[test]
fn another_subnet_may_be_on_any_interface_that_is_up_the_closest_first() {
    let host = FakeHost::usual();
    assert_eq!(allowed(&host, "10.1.0.9/32"), ["eth1", "eth0", "eth2"]);
    assert_eq!(allowed(&host, "192.0.2.9/24"), ["eth0", "eth1", "eth2"]);
    assert_eq!(allowed(&host, "2001:db8::9/64"), ["eth0", "eth1", "eth2"]);
    assert_eq!(pick(&host, "192.0.2.9/24", &["eth2"]).unwrap().0, "eth2");
    assert_eq!(pick(&host, "192.0.2.9/24", &["eth2", "eth1"]).unwrap().0, "eth2,eth1");
}

#[test]
fn two_interfaces_of_one_subnet_are_both_allowed() {
    let mut host = FakeHost::usual();
    host.assigned.push(assigned(4, "10.0.0.2/24"));
    assert_eq!(allowed(&host, "10.0.0.9"), ["eth0", "eth2"]);
}

#[test]
fn down_or_without_carrier_or_loopback_is_not_allowed() {
    let mut host = FakeHost::usual();
    host.links[1].admin_up = false;
    assert!(allowed(&host, "10.0.0.9/24").is_empty(), "its subnet's only interface is down");
    let e = pick(&host, "10.0.0.9/24", &[]).unwrap_err();
    assert!(e.message.contains("eth0 is down"), "{}", e.message);
    host.links[2].carrier = false;
    assert_eq!(allowed(&host, "192.0.2.9/24"), ["eth2"]);
    assert!(pick(&host, "192.0.2.9/24", &["lo"]).unwrap_err().message.contains("loopback"));
}

#[test]
fn an_unknown_length_is_asked_for() {
    let e = pick(&FakeHost::usual(), "192.0.2.9", &[]).unwrap_err();
    assert!(e.message.contains("as 192.0.2.9/32 for"), "{}", e.message);
    assert!(
        pick(&FakeHost::usual(), "192.0.2.9/24", &["eth9"])
            .unwrap_err()
            .message
            .contains("no interface 'eth9'")
    );
    assert!(pick(&FakeHost::usual(), "10.0.0.9", &["eth0", "eth0"]).is_err());
}

#[test]
fn without_an_address_all_interfaces_are_judged_by_their_state() {
    let mut host = FakeHost::usual();
    host.links.push(Link { carrier: false, ..link(5, "eth3") });
    let all: Vec<(String, bool)> =
        choices(&host.links, &host.assigned, None).into_iter().map(|c| (c.name, c.allowed)).collect();
    let expected = [("eth0", true), ("eth1", true), ("eth2", true), ("lo", false), ("eth3", false)];
    assert_eq!(all, expected.map(|(n, a)| (n.to_owned(), a)));
}
