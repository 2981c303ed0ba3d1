use clap::CommandFactory;
use proptest::prelude::*;

use super::*;

fn parses(line: &str) -> bool {
    Args::try_parse_from(line.split(' ')).is_ok()
}

#[test]
fn the_command_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_form_of_the_contract_is_understood() {
    for line in [
        "vipctl status",
        "vipctl status --watch --all",
        "vipctl status --resources",
        "vipctl status --resources ip-10.* --owner a --state osf --limit 10 --offset 5",
        "vipctl create ip 10.9.0.0/16 --each --except 10.9.0.1,10.9.7.0-10.9.7.9 --accept anyip",
        "vipctl create ip 10.0.0.1 10.0.0.7-10.0.0.9/24 @list --group shop",
        "vipctl create ip @list --separate",
        "vipctl delete shop --address 10.0.0.1,10.0.0.7-10.0.0.9 --address @list",
        "vipctl list",
        "vipctl list shop --limit 10 --offset 5",
        "vipctl events --last 5 --kind restore --tag shop --follow",
        "vipctl set t source=enable on-conflict=yield accept=route",
        "vipctl --socket /tmp/s --json status",
        "vipctl status --json --socket /tmp/s",
        "vipctl create ip 10.0.0.9/24",
        "vipctl create ip www --netmask 255.255.255.0 --dev eth0 --dev eth1 --tag t --priority 5 --switchback automatic --extend-to b --extend-to c --no-wait",
        "vipctl create ec2-route --ip ip-172.16.0.9",
        "vipctl create ec2-route --ip db --region eu-central-1 --tag t --force --no-wait",
        "vipctl create ec2-eip --eip 203.0.113.9 --dev eth0",
        "vipctl create ec2-eip --eip 203.0.113.9 --dev eth0 --dev eth1",
        "vipctl create ec2-eip --eip 203.0.113.9 --dev eth0 --region eu-central-1 --tag t --priority 5 --switchback automatic --extend-to b --extend-to c --force --no-wait",
        "vipctl extend t --to b --priority 20 --dev eth0",
        "vipctl delete t --no-wait",
        "vipctl in-service t --on b",
        "vipctl out-of-service t",
        "vipctl show t",
        "vipctl set t priority=3 devices=eth0,eth1 --node b",
        "vipctl ping-list show",
        "vipctl ping-list show 10.0.0.0/24 --node b",
        "vipctl ping-list add 10.0.0.0/24 10.0.0.254 10.0.0.253",
        "vipctl ping-list remove 10.0.0.0/24 10.0.0.254 --node all",
        "vipctl interfaces",
        "vipctl subnet list --json",
        "vipctl subnet monitor 10.1.0.0/24",
        "vipctl subnet monitor 10.1.0.0/24 --target 10.1.0.1 --target 10.1.0.2 --interval 0.5 --fall 2 --rise 4",
        "vipctl subnet monitor fd00::/64 --target peers",
        "vipctl subnet unmonitor 10.1.0.0/24",
        "vipctl set t subnets=10.1.0.0/24,fd00::/64",
        "vipctl set t subnets=",
        "vipctl interfaces 10.0.0.9/24",
        "vipctl export",
        "vipctl apply cluster.toml --dry-run",
        "vipctl apply - --prune --yes --no-wait",
        "vipctl verify cluster.toml",
        "vipctl cluster init name",
        "vipctl cluster join 10.0.0.1:7411 --token T",
        "vipctl cluster join node-a --token -",
        "vipctl cluster token",
        "vipctl cluster rotate-key",
        "vipctl cluster status",
        "vipctl events --follow",
        "vipctl ping 10.0.0.1",
        "vipctl ping 10.0.0.255 -b -c 2 -w 1.5 -I 10.0.0.1 -z 10.0.0.2,10.0.0.3",
        "vipctl ping fd00::1 -I fd00::2",
    ] {
        assert!(parses(line), "{line}");
    }
}

#[test]
fn wrong_usage_is_refused() {
    for line in [
        "vipctl",
        "vipctl frobnicate",
        "vipctl create ip",
        "vipctl create ip 10.0.0.9 --priority 0",
        "vipctl create ip 10.0.0.9 --except 10.0.0",
        "vipctl create ip 10.0.0.9 --except 10.0.0.9-10.0.0.1",
        "vipctl create ip 10.0.0.9 --accept perhaps",
        "vipctl status --state lost",
        "vipctl events --last some",
        "vipctl create ip 10.0.0.9 --priority 1000",
        "vipctl create ip 10.0.0.9 --switchback sometimes",
        "vipctl create ip 10.0.0.9 --tag a/b",
        "vipctl create ec2-route",
        "vipctl create ec2-route --ip t --dev eth0",
        "vipctl create ec2-eip --eip 203.0.113.9",
        "vipctl create ec2-eip --dev eth0",
        "vipctl create ec2-eip --eip fd00::9 --dev eth0",
        "vipctl create ec2-eip --eip www --dev eth0",
        "vipctl extend t",
        "vipctl set t",
        "vipctl set t priority",
        "vipctl ping-list add 10.0.0.0/24",
        "vipctl ping-list add 10.0.0.0/33 10.0.0.1",
        "vipctl subnet",
        "vipctl subnet monitor 10.1.0.0",
        "vipctl subnet monitor 10.1.0.0/24 --target www",
        "vipctl subnet monitor 10.1.0.0/24 --fall 0",
        "vipctl ping 10.0.0.1 -c 0",
        "vipctl ping 10.0.0.1 -w 0",
        "vipctl ping 10.0.0.1 -z nobody",
        "vipctl cluster join 10.0.0.1",
    ] {
        assert!(!parses(line), "{line}");
    }
}

proptest! {
    #[test]
    fn no_arguments_make_it_panic(words in proptest::collection::vec("(create|ip|status|ping|set|-[bcwIz]|--[a-z]{0,8}|[a-z0-9./:=]{0,10})", 0..6)) {
        let _ = Args::try_parse_from(std::iter::once("vipctl".to_owned()).chain(words));
    }
}
