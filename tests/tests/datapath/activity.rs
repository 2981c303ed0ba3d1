//! Row DP-5.

use std::net::{IpAddr, Ipv4Addr};

use vipd::{act::datapath::Datapath as _, observe::clock};

use crate::{
    arp,
    bench::*,
    echo4, echo6,
    fixture::{Fixture, Fixtures},
    nd,
};

/// Every fixture with this prefix, in this state.
fn frames(make: fn(&mut Fixtures), name: &str) -> Vec<Vec<u8>> {
    let mut fixtures = Fixtures::default();
    make(&mut fixtures);
    let named = |fixture: &Fixture| fixture.gates == Gates::Open && fixture.name.starts_with(name);
    fixtures.0.into_iter().filter(named).map(|fixture| fixture.frame).collect()
}

fn one(make: fn(&mut Fixtures), name: &str) -> Vec<u8> {
    frames(make, name).into_iter().next().unwrap_or_else(|| panic!("there is no fixture '{name}'"))
}

pub fn is_counted_by_kind_and_address() -> Result<(), String> {
    let (v4, v6) = (IpAddr::from(VIP4), IpAddr::from(VIP6));
    let frames = [
        // (frame, for which address, arp, nd, requests, replies)
        (one(arp::fixtures, "arp: who-has, broadcast, untagged"), Some(v4), 1, 0, 0, 0),
        (one(arp::fixtures, "arp: reply of somebody else"), None, 1, 0, 0, 0),
        (one(echo4::fixtures, "echo4: untagged"), Some(v4), 0, 0, 1, 0),
        (one(echo4::fixtures, "ip4: echo reply"), Some(v4), 0, 0, 0, 1),
        (one(echo4::fixtures, "ip4: TCP"), Some(v4), 0, 0, 0, 0),
        (one(echo4::fixtures, "echo4: not held"), None, 0, 0, 1, 0),
        (one(echo4::fixtures, "echo4: held, in a frame to another station"), None, 0, 0, 1, 0),
        (one(nd::fixtures, "nd: solicitation to the group, untagged"), Some(v6), 0, 1, 0, 0),
        (one(nd::fixtures, "nd: advertisement of something else"), None, 0, 1, 0, 0),
        (one(echo6::fixtures, "echo6: untagged"), Some(v6), 0, 0, 1, 0),
        (one(echo6::fixtures, "ip6: echo reply"), Some(v6), 0, 0, 0, 1),
    ];
    let mut bench = bench();
    for gates in [Gates::Open, Gates::Expired] {
        bench.set(gates);
        for (frame, address, arp, nd, requests, replies) in &frames {
            let before = (bench.activity(), bench.vip_activity(v4), bench.vip_activity(v6));
            let earliest = clock::now().0;
            bench.ingress(frame);
            let latest = clock::now().0;
            let (all, four, six) = (bench.activity(), bench.vip_activity(v4), bench.vip_activity(v6));
            let bytes = frame.len() as u64;
            let rose = (
                all.frames - before.0.frames,
                all.bytes - before.0.bytes,
                all.arp - before.0.arp,
                all.nd - before.0.nd,
                all.echo_requests - before.0.echo_requests,
                all.echo_replies - before.0.echo_replies,
            );
            if rose != (1, bytes, *arp, *nd, *requests, *replies) {
                return Err(format!("{gates:?}, {address:?}: rose by {rose:?}"));
            }
            if !(earliest..=latest).contains(&all.last_receive_ns) {
                return Err(format!("last heard at {}, not in {earliest}..={latest}", all.last_receive_ns));
            }
            for (vip, before, after) in [(v4, before.1, four), (v6, before.2, six)] {
                let (packets, sum) = (after.packets - before.packets, after.bytes - before.bytes);
                let expected = if *address == Some(vip) { (1, bytes) } else { (0, 0) };
                if (packets, sum) != expected {
                    return Err(format!("{vip}: rose by {packets} packets, {sum} bytes"));
                }
                if expected.0 == 1 && after.last_receive_ns != all.last_receive_ns {
                    return Err(format!("{vip}: last heard at another time"));
                }
            }
        }
    }
    Ok(())
}

/// A slot that an address leaves behind is clean for the next.
pub fn starts_at_zero() -> Result<(), String> {
    let address = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 77));
    let bench = bench();
    bench.datapath.unprogram(VIP4.into()).map_err(|error| error.to_string())?;
    bench.datapath.program(address, IFINDEX).map_err(|error| error.to_string())?;
    let activity = bench.vip_activity(address);
    bench.datapath.unprogram(address).map_err(|error| error.to_string())?;
    bench.datapath.program(VIP4.into(), IFINDEX).map_err(|error| error.to_string())?;
    if activity.packets == 0 { Ok(()) } else { Err(format!("{activity:?}")) }
}
