use anyhow::{Context, Result, ensure};
use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, timeout_at},
};
use vipd::observe::network::NetworkEvent;

use crate::{
    Tests,
    lab::{DEADLINE, Pair, addr, find, net},
};

pub const TESTS: Tests = &[
    ("link_changes", link_changes),
    ("foreign_changes_of_addresses", foreign_changes_of_addresses),
    ("own_changes_of_addresses", own_changes_of_addresses),
    ("lost_events_mean_resync", lost_events_mean_resync),
];

/// Waits for an event; others are passed over.
async fn expect(events: &mut Receiver<NetworkEvent>, wanted: impl Fn(&NetworkEvent) -> bool) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let event = timeout_at(deadline, events.recv()).await.context("the event did not come in time")??;
        if wanted(&event) {
            return Ok(());
        }
    }
}

fn link_changes() -> Result<()> {
    let pair = Pair::new()?;
    let peer = &pair.peer;
    pair.with_link(async |network, link| {
        let mut events = network.events();
        let ours = NetworkEvent::Link { index: link.index, name: "eth0".to_owned() };
        for (change, carrier) in [("link set eth0 down", false), ("link set eth0 up", true)] {
            peer.ip(change)?;
            // There is one event for each step of the change.
            while network.link("eth0").await?.carrier != carrier {
                expect(&mut events, |e| *e == ours).await?;
            }
        }
        Ok(())
    })
}

fn foreign_changes_of_addresses() -> Result<()> {
    let pair = Pair::new()?;
    let us = &pair.us;
    pair.with_link(async |network, link| {
        let mut events = network.events();
        for vip in ["192.0.2.50/24", "2001:db8::50/64"] {
            let (address, text) = (net(vip).addr(), net(vip).addr().to_string());
            let ours = NetworkEvent::Address { index: link.index, address };
            network.add_address(&link, net(vip)).await?;
            expect(&mut events, |e| *e == ours).await?;
            us.ip(&format!("addr del {vip} dev eth0"))?;
            expect(&mut events, |e| *e == ours).await?;
            ensure!(find(&network, &text).await?.is_empty());
        }
        Ok(())
    })
}

fn own_changes_of_addresses() -> Result<()> {
    Pair::new()?.with_link(async |network, link| {
        let mut events = network.events();
        network.add_address(&link, net("192.0.2.50/24")).await?;
        let ours = NetworkEvent::Address { index: link.index, address: addr("192.0.2.50") };
        expect(&mut events, |e| *e == ours).await?;
        network.delete_address(&link, net("192.0.2.50/24")).await?;
        expect(&mut events, |e| *e == ours).await
    })
}

/// More changes than the socket's buffer holds while nobody reads: the runtime of this test has one
/// thread, which is busy.
fn lost_events_mean_resync() -> Result<()> {
    let pair = Pair::new()?;
    let us = &pair.us;
    pair.with_network(async |network| {
        let mut events = network.events();
        let mut batch = String::new();
        for n in 0..30_000 {
            let way = if n % 2 == 0 { "add" } else { "del" };
            batch.push_str(&format!("addr {way} 10.9.9.9/32 dev eth0\n"));
        }
        us.ip_batch(&batch)?;
        expect(&mut events, |e| *e == NetworkEvent::Resync).await.or_else(|error| {
            // The receiver's own backlog may have overrun as well, which says the same.
            if error.to_string().contains("lagged") { Ok(()) } else { Err(error) }
        })
    })
}
