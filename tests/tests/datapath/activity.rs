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
    let states = Form::ALL.map(|form| [(form, Gates::Open), (form, Gates::Expired)]);
    for (form, gates) in states.into_iter().flatten() {
        bench.enter(form);
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
                return Err(format!("{form:?}, {gates:?}, {address:?}: rose by {rose:?}"));
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
    for form in Form::ALL {
        let mut bench = bench();
        bench.enter(form);
        bench.set(Gates::Open);
        bench.ingress(&one(arp::fixtures, "arp: who-has, broadcast, untagged"));
        let used = bench.vip_activity(VIP4.into());
        let other = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 77));
        let text = |error: vipd::act::datapath::DatapathError| error.to_string();
        bench.datapath.unprogram(group(0), &only(VIP4.into())).map_err(text)?;
        let gone = bench.vip_activity(VIP4.into());
        bench.datapath.program(group(0), IFINDEX, &only(other)).map_err(text)?;
        bench.datapath.program(group(0), IFINDEX, &only(VIP4.into())).map_err(text)?;
        let fresh = [bench.vip_activity(other), bench.vip_activity(VIP4.into())];
        bench.datapath.unprogram(group(0), &only(other)).map_err(text)?;
        if used.packets == 0 || gone.packets != 0 || fresh.iter().any(|activity| activity.packets != 0) {
            return Err(format!("{form:?}: {used:?}, then {gone:?}, then {fresh:?}"));
        }
    }
    Ok(())
}

/// What was counted goes with an address into a page and out of it again.
pub fn goes_with_its_address() -> Result<(), String> {
    let mut bench = bench();
    bench.enter(Form::Alone);
    bench.set(Gates::Open);
    bench.ingress(&one(arp::fixtures, "arp: who-has, broadcast, untagged"));
    let alone = bench.vip_activity(VIP4.into());
    bench.enter(Form::Pages);
    let member = bench.vip_activity(VIP4.into());
    bench.ingress(&one(arp::fixtures, "arp: who-has, broadcast, untagged"));
    let counted = bench.vip_activity(VIP4.into());
    bench.enter(Form::Alone);
    let again = bench.vip_activity(VIP4.into());
    if member == alone && counted.packets == alone.packets + 1 && again == counted {
        Ok(())
    } else {
        Err(format!("{alone:?}, in a page {member:?}, then {counted:?}, alone again {again:?}"))
    }
}
