use futures::executor::block_on;

use super::{
    super::super::fake::{FakeHost, assigned},
    *,
};
use crate::api::ErrorKind;

fn host() -> FakeHost {
    FakeHost { names: vec![("www", vec!["10.0.0.9"]), ("a-b", vec!["10.0.0.8"])], ..FakeHost::usual() }
}

fn settled(given: &[Given], each: bool, netmask: Option<&str>, except: &[&str]) -> Result<String> {
    let host = host();
    let mut mistakes = Mistakes::default();
    let reading = Reading { netmask, each };
    let parts = block_on(reading.read(&host, given, &mut mistakes));
    let except: Vec<Range> = except.iter().map(|e| e.parse().unwrap()).collect();
    let all = settle(&parts, &except, &Subnets::new(&host.assigned), &mut mistakes);
    mistakes.refuse()?;
    let each: Vec<String> =
        all.by_subnet().map(|(net, hosts)| format!("{hosts}/{}", net.prefix_len())).collect();
    Ok(each.join(" "))
}

fn argument(text: &str) -> Given {
    Given::Argument(text.to_owned())
}

fn one(text: &str) -> Result<String> {
    settled(&[argument(text)], false, None, &[])
}

#[test]
fn addresses_names_and_ranges_with_and_without_length() {
    for (text, all) in [
        ("10.0.0.9", "10.0.0.9/24"),
        ("10.0.0.9/32", "10.0.0.9/32"),
        ("www", "10.0.0.9/24"),
        ("a-b/32", "10.0.0.8/32"),
        ("10.0.0.9-10.0.0.20", "10.0.0.9-10.0.0.20/24"),
        ("10.9.0.9-10.9.3.20/255.255.0.0", "10.9.0.9-10.9.3.20/16"),
        ("fd00::5-fd00::ff", "fd00::5-fd00::ff/64"),
    ] {
        assert_eq!(one(text).unwrap(), all, "{text}");
    }
    let several = [argument("10.0.0.9"), argument("10.1.0.5-10.1.0.6"), argument("10.0.0.10")];
    assert_eq!(settled(&several, false, None, &[]).unwrap(), "10.0.0.9-10.0.0.10/24 10.1.0.5-10.1.0.6/16");
    let masked = [argument("192.0.2.9-192.0.2.10"), argument("192.0.2.20")];
    assert_eq!(
        settled(&masked, false, Some("255.255.255.0"), &[]).unwrap(),
        "192.0.2.9-192.0.2.10,192.0.2.20/24"
    );
}

#[test]
fn each_host_of_a_prefix_without_those_that_no_host_can_have() {
    let each = |text: &str| settled(&[argument(text)], true, None, &[]);
    for (text, all) in [
        ("10.9.0.0/16", "10.9.0.1-10.9.255.254/16"),
        ("10.9.0.0/30", "10.9.0.1-10.9.0.2/30"),
        ("10.9.0.0/31", "10.9.0.0-10.9.0.1/31"),
        ("10.9.0.7/32", "10.9.0.7/32"),
        ("fd01::/112", "fd01::1-fd01::ffff/112"),
        ("fd01::/127", "fd01::-fd01::1/127"),
        ("10.0.0.9-10.0.0.11", "10.0.0.9-10.0.0.11/24"),
    ] {
        assert_eq!(each(text).unwrap(), all, "{text}");
    }
    assert!(each("10.9.0.5/16").unwrap_err().message.contains("give the prefix 10.9.0.0/16"));
    let holes = settled(&[argument("10.9.0.0/29")], true, None, &["10.9.0.2", "10.9.0.5-10.9.9.9"]);
    assert_eq!(holes.unwrap(), "10.9.0.1,10.9.0.3-10.9.0.4/29");
}

#[test]
fn what_is_wrong_says_the_rule_and_the_remedy() {
    for (text, kind, reason) in [
        ("10.0.0.9-10.0.0.1", ErrorKind::Usage, "ends before it begins"),
        ("10.0.0.9-fd00::1", ErrorKind::Usage, "mixes IPv4 and IPv6"),
        ("10.0.0.9-10.0.0", ErrorKind::Usage, "no range of addresses"),
        ("10.0.0.9-10.0.0.10/33", ErrorKind::Usage, "out of range"),
        ("192.0.2.1-192.0.2.9", ErrorKind::Refused, "give it, as 192.0.2.1-192.0.2.9/LEN"),
        ("10.0.0.200-10.0.1.9/24", ErrorKind::Refused, "beyond its subnet 10.0.0.0/24"),
        ("10.0.0.0-10.0.0.9", ErrorKind::Refused, "leave it out with --except"),
    ] {
        let e = one(text).unwrap_err();
        assert_eq!(e.kind, kind, "{text}: {}", e.message);
        assert!(e.message.contains(reason), "{text}: {}", e.message);
    }
    let slip = settled(&[argument("10.0.0.9")], false, None, &["10.0.0.8"]).unwrap_err();
    assert!(slip.message.contains("--except 10.0.0.8 is none of the addresses"), "{}", slip.message);
    assert_eq!(
        settled(&[argument("10.0.0.0-10.0.0.9")], false, None, &["10.0.0.0"]).unwrap(),
        "10.0.0.1-10.0.0.9/24"
    );
}

#[test]
fn a_file_has_one_a_line_and_all_its_mistakes_are_told_at_once() {
    let file = |text: &str| [Given::File { name: "list".into(), text: text.into() }];
    let good = "# our addresses\n10.0.0.9\n\n  10.0.0.10-10.0.0.12 # three\r\nwww\nfd00::7/64\n";
    assert_eq!(settled(&file(good), false, None, &[]).unwrap(), "10.0.0.9-10.0.0.12/24 fd00::7/64");
    let bad = "10.0.0.9\n10.0.0.256\n\nnobody\n10.0.0.255 # broadcast\n10.0.0.9/24/24\n192.0.2.7";
    let e = settled(&file(bad), false, None, &[]).unwrap_err();
    for line in [
        "5 mistakes, nothing was changed:",
        "\nlist:2: '10.0.0.256' is neither an address nor a host name",
        "\nlist:4: the name 'nobody' cannot be resolved",
        "\nlist:5: 10.0.0.255 is the broadcast address",
        "\nlist:6: '24/24' is no netmask",
        "\nlist:7: no subnet of this host contains 192.0.2.7",
    ] {
        assert!(e.message.contains(line), "{line:?} is missing in\n{}", e.message);
    }
    assert!(
        settled(&file("# none\n"), false, None, &[]).unwrap_err().message.contains("list has no address")
    );
    let many: String = (0..200).map(|n| format!("10.0.0.{}x\n", n)).collect();
    let e = settled(&file(&many), false, None, &[]).unwrap_err();
    assert_eq!(e.message.lines().count(), 52);
    assert!(e.message.starts_with("200 mistakes") && e.message.ends_with("and 150 more"), "{}", e.message);
}

#[test]
fn large_files_are_quick() {
    let text: String = (0..65_536u32).map(|n| format!("10.9.{}.{}/8\n", n >> 8, n & 255)).collect();
    let file = [Given::File { name: "list".into(), text }];
    assert_eq!(settled(&file, false, None, &[]).unwrap(), "10.9.0.0-10.9.255.255/8");
}

#[test]
fn the_narrowest_subnet_here_is_meant() {
    let mut host = host();
    host.assigned.push(assigned(4, "10.0.0.129/25"));
    let subnets = Subnets::new(&host.assigned);
    let of = |range: &str| subnets.of(range.parse().unwrap(), None).map(|n| n.to_string());
    assert_eq!(of("10.0.0.200").unwrap(), "10.0.0.128/25");
    assert_eq!(of("10.0.0.100-10.0.0.200").unwrap(), "10.0.0.0/24");
}
