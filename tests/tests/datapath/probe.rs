//! Row DP-9 on the bench: what is reflected, what is believed, and what the fence shuts.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use datapath_common::{
    PATH_SILENT, PROBE_ALIVE, PROBE_GUARDED, PROBE_KIND_FENCE, PROBE_KIND_PROBE, PROBE_KIND_REFLECTED,
    PROBE_LENGTH, Probe, Verdict,
};
use vipd::{
    act::datapath::{Datapath as _, Probes},
    core::detection::{ProbeIdentity, ProbePeer},
    observe::clock,
};
use vipd_tests::packets::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac, Tag, UDP, V4, V6, checksum, ethernet};

use crate::{
    bench::*,
    echo4,
    fixture::{Fixture, Fixtures, taggings},
};

const CLUSTER: u64 = 0x1122_3344_5566_7788;
const ME: u64 = 3;
const PEER: u64 = 5;
const INCARNATION: u64 = 9;
const OURS_KEY: [u64; 2] = [0x0102_0304_0506_0708, 0x1112_1314_1516_1718];
const THEIRS_KEY: [u64; 2] = [0xa1a2_a3a4_a5a6_a7a8, 0xb1b2_b3b4_b5b6_b7b8];
/// Under the other cluster key that is accepted.
const OURS_OTHER_KEY: [u64; 2] = [0x2122_2324_2526_2728, 0x3132_3334_3536_3738];
const THEIRS_OTHER_KEY: [u64; 2] = [0xc1c2_c3c4_c5c6_c7c8, 0xd1d2_d3d4_d5d6_d7d8];
const PORT: u16 = 7402;
const TIMEOUT: Duration = Duration::from_millis(50);
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// (theirs, ours) by path: IPv4 and IPv6.
fn ends(path: u8) -> (IpAddr, IpAddr) {
    if path == 0 { (CLIENT4.into(), STATION4.into()) } else { (CLIENT6.into(), STATION6.into()) }
}

/// Programs that know one peer on both paths, no fence, and nothing of earlier probes.
fn probes(bench: &Bench) -> Arc<Probes> {
    let probes = bench.datapath.probes().unwrap();
    probes.forget().unwrap();
    probes.identify(ProbeIdentity { cluster: CLUSTER, me: ME, incarnation: INCARNATION }).unwrap();
    let peer = |path| {
        let (theirs, ours) = ends(path);
        ProbePeer {
            node: PEER,
            path,
            ours: SocketAddr::new(ours, PORT),
            theirs: SocketAddr::new(theirs, PORT + 1),
            ours_keys: [OURS_KEY, OURS_OTHER_KEY],
            theirs_keys: [THEIRS_KEY, THEIRS_OTHER_KEY],
            timeout: TIMEOUT,
        }
    };
    probes.set_peers(&[peer(0), peer(1)]).unwrap();
    probes
}

/// Newer than any before it, in this process.
fn sequence() -> u64 {
    clock::now().0
}

fn request(kind: u8, path: u8, fence_below: u64) -> Probe {
    let mut probe = Probe {
        head: Probe::head(kind, path),
        cluster: CLUSTER,
        from: PEER,
        to: ME,
        incarnation: 1,
        sequence: sequence(),
        sent_ns: 77,
        fence_below,
        reflected_ns: 0,
        lease_epoch: 0,
        lease_remaining_ns: 0,
        fence: 0,
        flags: 0,
        reserved: 0,
        tag: 0,
    };
    probe.sign(&THEIRS_KEY);
    probe
}

/// UDP with its checksum, which for IPv6 must be there.
fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let sum = checksum(&[pseudo(source.ip(), destination.ip(), length), bytes.clone()].concat());
    let sum = if sum == 0 { 0xffff } else { sum };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn pseudo(source: IpAddr, destination: IpAddr, length: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0, UDP]);
    bytes.extend(length.to_be_bytes());
    bytes
}

struct Way {
    macs: (Mac, Mac),
    source: SocketAddr,
    destination: SocketAddr,
    ttl: u8,
}

fn frame(way: &Way, tags: &[Tag], payload: &[u8]) -> Vec<u8> {
    let datagram = udp(way.source, way.destination, payload);
    let (to, from) = way.macs;
    match (way.source.ip(), way.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = V4 { ttl: way.ttl, ..V4::new(source, destination, UDP, datagram) };
            ethernet(to, from, tags, ETHERTYPE_IPV4, &ip.bytes())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = V6 { hop_limit: way.ttl, ..V6::new(source, destination, UDP, datagram) };
            ethernet(to, from, tags, ETHERTYPE_IPV6, &ip.bytes())
        }
        _ => unreachable!("both of one family"),
    }
}

/// From the peer to us.
fn inbound(path: u8) -> Way {
    let (theirs, ours) = ends(path);
    let (source, destination) = (SocketAddr::new(theirs, PORT + 1), SocketAddr::new(ours, PORT));
    Way { macs: (US, CLIENT), source, destination, ttl: 61 }
}

/// From us to the peer.
fn outbound(path: u8) -> Way {
    let Way { source, destination, .. } = inbound(path);
    Way { macs: (CLIENT, US), source: destination, destination: source, ttl: 64 }
}

fn payload(frame: &[u8]) -> Probe {
    bytemuck::pod_read_unaligned(&frame[frame.len() - PROBE_LENGTH..])
}

fn bytes(probe: &Probe) -> Vec<u8> {
    bytemuck::bytes_of(probe).to_vec()
}

fn check(what: &str, condition: bool) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what.into()) }
}

fn is(what: &str, outcome: &Outcome, action: u32, verdict: Verdict) -> Result<(), String> {
    check(
        &format!("{what}: {} {:?}, expected {action} {verdict:?}", outcome.action, outcome.counted),
        outcome.action == action && outcome.counted == [(verdict, 1)],
    )
}

/// Both families, under every tagging: the answer is compared byte by byte with one built from scratch.
pub fn is_reflected() -> Result<(), String> {
    let mut bench = bench();
    bench.set(Gates::Open);
    let probes = probes(&bench);
    for path in [0, 1] {
        for (name, tags, ..) in taggings() {
            for (alive, guarded) in [(true, true), (true, false), (false, true)] {
                let what = format!("path {path}, {name}, alive {alive}, guarded {guarded}");
                let until = if alive { clock::now().after(Duration::from_secs(60)) } else { clock::now() };
                probes.beat(until, guarded).unwrap();
                let ask = request(PROBE_KIND_PROBE, path, 0);
                let earliest = clock::now().0;
                let outcome = bench.ingress(&frame(&inbound(path), &tags, &bytes(&ask)));
                is(&what, &outcome, XDP_TX, Verdict::AnsweredProbe)?;
                let answer = payload(&outcome.frame);
                let flags = if alive { PROBE_ALIVE } else { 0 } | if guarded { PROBE_GUARDED } else { 0 };
                let mut expected = Probe {
                    head: Probe::head(PROBE_KIND_PROBE | PROBE_KIND_REFLECTED, path),
                    from: ME,
                    to: PEER,
                    reflected_ns: answer.reflected_ns,
                    lease_epoch: bench.datapath.lease().unwrap().epoch,
                    lease_remaining_ns: answer.lease_remaining_ns,
                    flags,
                    ..ask
                };
                expected.sign(&OURS_KEY);
                check(
                    &format!("{what}: its time"),
                    (earliest..=clock::now().0).contains(&answer.reflected_ns),
                )?;
                let deadline = bench.datapath.lease().unwrap().deadline_ns;
                check(
                    &format!("{what}: the lease's rest"),
                    answer.lease_remaining_ns == deadline - answer.reflected_ns,
                )?;
                check(
                    &format!("{what}: {:x?}\nexpected {:x?}", outcome.frame, expected),
                    outcome.frame == frame(&outbound(path), &tags, &bytes(&expected)),
                )?;
            }
        }
    }
    bench.set(Gates::Expired);
    let outcome = bench.ingress(&frame(&inbound(0), &[], &bytes(&request(PROBE_KIND_PROBE, 0, 0))));
    check("a lease that has run out has no rest", payload(&outcome.frame).lease_remaining_ns == 0)
}

/// While the cluster's key changes: a question under either key is answered under the same, and an answer to ours
/// is taken under either.
pub fn either_key_is_believed() -> Result<(), String> {
    let mut bench = bench();
    bench.set(Gates::Open);
    for (theirs, ours) in [(THEIRS_KEY, OURS_KEY), (THEIRS_OTHER_KEY, OURS_OTHER_KEY)] {
        let probes = probes(&bench);
        for kind in [PROBE_KIND_PROBE, PROBE_KIND_FENCE] {
            let mut ask = request(kind, 0, 0);
            ask.sign(&theirs);
            let outcome = bench.ingress(&frame(&inbound(0), &[], &bytes(&ask)));
            let verdict =
                if kind == PROBE_KIND_FENCE { Verdict::AnsweredFence } else { Verdict::AnsweredProbe };
            is("asked", &outcome, XDP_TX, verdict)?;
            let mut expected = payload(&outcome.frame);
            let told = expected.tag;
            expected.sign(&ours);
            check("answered under the same key", told == expected.tag)?;
        }
        bench.renew_programs();
        let reader = bench.own_probes();
        let _known = self::probes(&bench);
        bench.egress(&ours_probe(&OURS_OTHER_KEY));
        check("what leaves is signed with the key in use", reader.state(PEER, 0).is_none())?;
        bench.egress(&ours_probe(&OURS_KEY));
        let mut answer = Probe {
            head: Probe::head(PROBE_KIND_PROBE | PROBE_KIND_REFLECTED, 0),
            incarnation: INCARNATION,
            sequence: 1,
            ..request(PROBE_KIND_PROBE, 0, 0)
        };
        answer.sign(&theirs);
        let outcome = bench.ingress(&frame(&inbound(0), &[], &bytes(&answer)));
        is("answered", &outcome, XDP_DROP, Verdict::DroppedReflection)?;
        drop(probes);
    }
    Ok(())
}

fn ours_probe(key: &[u64; 2]) -> Vec<u8> {
    ours(0, 1, key)
}

/// All that is not a whole, fresh, authentic probe for this node goes on to the kernel untouched.
pub fn nothing_else_is_believed() -> Result<(), String> {
    let mut bench = bench();
    bench.set(Gates::Open);
    let probes = probes(&bench);
    let signed = |change: fn(&mut Probe)| {
        let mut probe = request(PROBE_KIND_FENCE, 0, 1_000_000);
        change(&mut probe);
        probe.sign(&THEIRS_KEY);
        bytes(&probe)
    };
    let mut wrong_tag = request(PROBE_KIND_FENCE, 0, 1_000_000);
    wrong_tag.tag ^= 1;
    let mut wrong_key = request(PROBE_KIND_FENCE, 0, 1_000_000);
    wrong_key.sign(&OURS_KEY);
    let way = inbound(0);
    let other = |change: fn(&mut Way)| {
        let mut way = inbound(0);
        change(&mut way);
        frame(&way, &[], &signed(|_| {}))
    };
    let doubted = [
        ("a wrong tag", frame(&way, &[], &bytes(&wrong_tag))),
        ("the key of the other direction", frame(&way, &[], &bytes(&wrong_key))),
        ("another cluster", frame(&way, &[], &signed(|p| p.cluster ^= 1))),
        ("to another node", frame(&way, &[], &signed(|p| p.to = 4))),
        ("from a stranger", frame(&way, &[], &signed(|p| p.from = 6))),
        ("another path", frame(&way, &[], &signed(|p| p.head = Probe::head(PROBE_KIND_FENCE, 1)))),
        ("an unknown kind", frame(&way, &[], &signed(|p| p.head = Probe::head(3, 0)))),
        (
            "an answer to nothing",
            frame(
                &way,
                &[],
                &signed(|p| {
                    p.head = Probe::head(PROBE_KIND_FENCE | PROBE_KIND_REFLECTED, 0);
                    p.incarnation = INCARNATION;
                }),
            ),
        ),
        ("from another address", other(|w| w.source.set_ip(Ipv4Addr::new(10, 9, 0, 77).into()))),
        ("from another port", other(|w| w.source.set_port(4))),
        ("to another port", other(|w| w.destination.set_port(4))),
        ("to another address", other(|w| w.destination.set_ip(STATION4_B.into()))),
        ("in a frame to somebody else", other(|w| w.macs.0 = STRANGER)),
        ("in a frame to all", other(|w| w.macs.0 = [0xff; 6])),
        ("in a frame from ourselves", other(|w| w.macs.1 = US)),
    ];
    for (what, sent) in doubted {
        let outcome = bench.ingress(&sent);
        is(what, &outcome, XDP_PASS, Verdict::PassedProbe)?;
        check(&format!("{what}: changed"), outcome.frame == sent)?;
    }
    let fragment = {
        let datagram = udp(way.source, way.destination, &signed(|_| {}));
        let ip = V4 { fragment: 0x2000, ..V4::new(CLIENT4, STATION4, UDP, datagram) };
        ethernet(US, CLIENT, &[], ETHERTYPE_IPV4, &ip.bytes())
    };
    let nothing_like_it = [
        ("a byte short", frame(&way, &[], &signed(|_| {})[..PROBE_LENGTH - 1])),
        ("a byte long", frame(&way, &[], &[signed(|_| {}), vec![0]].concat())),
        ("without the magic", frame(&way, &[], &signed(|p| p.head ^= 1))),
        ("another version", frame(&way, &[], &signed(|p| p.head ^= 3 << 32))),
        ("a fragment", fragment),
    ];
    for (what, sent) in nothing_like_it {
        is(what, &bench.ingress(&sent), XDP_PASS, Verdict::Passed)?;
    }
    // Said to be whole, and cut off in the frame.
    let whole = frame(&way, &[], &signed(|_| {}));
    for length in 14..whole.len() {
        let outcome = bench.ingress(&whole[..length]);
        check(&format!("cut at {length}: {outcome:?}"), outcome.action == XDP_PASS)?;
    }
    check("the fence stood still", probes.fence().unwrap() == 0)
}

pub fn replays_are_refused() -> Result<(), String> {
    let mut bench = bench();
    let _probes = probes(&bench);
    let ask = |incarnation, sequence, path| {
        let mut probe = Probe { incarnation, sequence, ..request(PROBE_KIND_PROBE, path, 0) };
        probe.sign(&THEIRS_KEY);
        frame(&inbound(path), &[], &bytes(&probe))
    };
    let base = sequence();
    // An incarnation that no other test has used.
    let i = base;
    let steps = [
        ("the first", ask(i, base + 5, 0), true),
        ("the same again", ask(i, base + 5, 0), false),
        ("an older one", ask(i, base + 4, 0), false),
        ("a newer one", ask(i, base + 6, 0), true),
        ("on another path", ask(i, base + 4, 1), true),
        ("of an older incarnation", ask(i - 1, base + 9, 0), false),
        ("of a newer incarnation", ask(i + 1, 1, 0), true),
        ("of the one before", ask(i, base + 9, 0), false),
    ];
    for (what, sent, fresh) in steps {
        let (action, verdict) =
            if fresh { (XDP_TX, Verdict::AnsweredProbe) } else { (XDP_PASS, Verdict::PassedProbe) };
        is(what, &bench.ingress(&sent), action, verdict)?;
    }
    // Other tests go on counting from the clock under incarnation 1: with peers known anew.
    bench.renew_programs();
    Ok(())
}

/// The fence rises and never falls, and shuts gates of every older lease epoch, whatever is written after.
pub fn the_fence_shuts_for_good() -> Result<(), String> {
    let mut bench = bench();
    let probes = probes(&bench);
    let epoch = LEASE_EPOCH;
    let ask = |below| frame(&inbound(0), &[], &bytes(&request(PROBE_KIND_FENCE, 0, below)));
    let (mut echo, mut leaving) = (Fixtures::default(), Fixtures::default());
    echo4::fixtures(&mut echo);
    crate::egress::fixtures(&mut leaving);
    let find = |f: Fixtures, name: &str| -> Fixture { f.0.into_iter().find(|f| f.name == name).unwrap() };
    let echo = find(echo, "echo4: untagged").frame;
    let leaving = find(leaving, "egress: IPv4 source, untagged (Open)").frame;
    let mut step = |below: u64, fence: u64, open: bool| -> Result<(), String> {
        let outcome = bench.ingress(&ask(below));
        let what = format!("asked for {below}");
        is(&what, &outcome, XDP_TX, Verdict::AnsweredFence)?;
        check(&format!("{what}: told"), payload(&outcome.frame).fence == fence)?;
        check(&format!("{what}: stands"), probes.fence().unwrap() == fence)?;
        // The daemon goes on as if nothing had happened.
        bench.set(Gates::Open);
        let verdict = if open { Verdict::AnsweredEcho4 } else { Verdict::DroppedClosedEcho };
        is(&what, &bench.ingress(&echo), if open { XDP_TX } else { XDP_DROP }, verdict)?;
        let egress = bench.egress(&leaving);
        check(&format!("{what}: egress {egress:?}"), (egress.action != 2) == open)
    };
    step(0, 0, true)?;
    step(epoch, epoch, true)?;
    step(epoch - 1, epoch, true)?;
    step(epoch + 1, epoch + 1, false)?;
    step(epoch, epoch + 1, false)?;
    step(u64::MAX, u64::MAX, false)?;
    step(epoch, u64::MAX, false)?;
    // The same membership keeps it; another one begins without.
    let who = ProbeIdentity { cluster: CLUSTER, me: ME, incarnation: INCARNATION + 1 };
    probes.identify(who).unwrap();
    check("kept over a restart", probes.fence().unwrap() == u64::MAX)?;
    probes.identify(ProbeIdentity { cluster: CLUSTER + 1, ..who }).unwrap();
    check("gone with the membership", probes.fence().unwrap() == 0)
}

/// Departure, answer, silence, and the answer after it, as the prober's kernel sees them.
pub fn silence_is_told_once() -> Result<(), String> {
    let mut bench = bench();
    bench.set(Gates::Open);
    for path in [0, 1] {
        one_silence(&mut bench, path).map_err(|error| format!("path {path}: {error}"))?;
    }
    Ok(())
}

fn ours(path: u8, sequence: u64, key: &[u64; 2]) -> Vec<u8> {
    let mut probe = Probe {
        head: Probe::head(PROBE_KIND_PROBE, path),
        from: ME,
        to: PEER,
        incarnation: INCARNATION,
        sequence,
        ..request(PROBE_KIND_PROBE, path, 0)
    };
    probe.sign(key);
    frame(&outbound(path), &[], &bytes(&probe))
}

fn answer(path: u8, sequence: u64, fence: u64, flags: u64) -> Vec<u8> {
    let mut probe = Probe {
        head: Probe::head(PROBE_KIND_PROBE | PROBE_KIND_REFLECTED, path),
        incarnation: INCARNATION,
        sequence,
        fence,
        flags,
        ..request(PROBE_KIND_PROBE, path, 0)
    };
    probe.sign(&THEIRS_KEY);
    frame(&inbound(path), &[], &bytes(&probe))
}

fn one_silence(bench: &mut Bench, path: u8) -> Result<(), String> {
    bench.renew_programs();
    let reader = bench.own_probes();
    let _known = probes(bench);
    let state = |r: &RawPaths| r.state(PEER, path);
    // Nobody but the daemon can start a timer.
    bench.egress(&ours(path, 1, &THEIRS_KEY));
    check("a forged departure", state(&reader).is_none())?;
    bench.egress(&ours(path, 1, &OURS_KEY));
    check("departed", state(&reader).is_some_and(|s| s.departed == 1 && s.silent == 0))?;
    let outcome = bench.ingress(&answer(path, 2, 0, 0));
    is("an answer to what never left", &outcome, XDP_PASS, Verdict::PassedProbe)?;
    let outcome = bench.ingress(&answer(path, 1, 4, PROBE_GUARDED));
    is("the answer", &outcome, XDP_DROP, Verdict::DroppedReflection)?;
    let known = state(&reader).ok_or("no state")?;
    check("answered", known.answered == 1 && known.rtt_ns > 0 && known.fence == 4)?;
    is(
        "the answer again",
        &bench.ingress(&answer(path, 1, 9, PROBE_GUARDED)),
        XDP_PASS,
        Verdict::PassedProbe,
    )?;
    bench.egress(&ours(path, 2, &OURS_KEY));
    let outcome = bench.ingress(&answer(path, 2, 9, 0));
    is("an answer of one who is not guarded", &outcome, XDP_DROP, Verdict::DroppedReflection)?;
    check("its fence proves nothing", state(&reader).is_some_and(|s| s.fence == 4))?;
    // Nothing is sent for longer than the time-out: nothing is judged.
    std::thread::sleep(TIMEOUT * 2);
    check("who sends nothing judges nothing", state(&reader).is_some_and(|s| s.silent == 0))?;
    bench.egress(&ours(path, 3, &OURS_KEY));
    let end = Instant::now() + Duration::from_secs(10);
    while state(&reader).is_some_and(|s| s.silent == 0) {
        check("never told", Instant::now() < end)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let known = state(&reader).ok_or("no state")?;
    check(
        "silent since the third",
        known.waiting == 3 && known.due_ns >= known.waiting_ns + TIMEOUT.as_nanos() as u64,
    )?;
    bench.egress(&ours(path, 4, &OURS_KEY));
    let outcome = bench.ingress(&answer(path, 4, 0, 0));
    is("it speaks again", &outcome, XDP_DROP, Verdict::DroppedReflection)?;
    check("no longer silent", state(&reader).is_some_and(|s| s.silent == 0 && s.answered == 4))?;
    let told: Vec<u64> = reader.kinds(path);
    check(&format!("told {told:?}"), told == [2, PATH_SILENT, 0])
}
