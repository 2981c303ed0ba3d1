//! A thousand calls at the same time.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use vipd_tests::{
    cloud::{Fault, Outcome, When, moto},
    lab::PATIENCE,
};

use super::{
    Test,
    caller::{Scene, pairs},
};

pub const TESTS: &[(&str, Test)] = &[("many::a_thousand_calls_at_once", thousand)];

const MANY: usize = 1_000;

fn thousand() -> Result<()> {
    let scene = Scene::new(1)?;
    let proxy = &scene.cloud.proxy;
    let rule = proxy.inject(When::action("ReplaceRoute"), Fault::Hang);
    let address = proxy.address();
    // To the one node and the other in turn.
    let requests = [0, 1].map(|node| {
        let mut swap = scene.swap(0);
        swap[2].1.clone_from(&scene.world.nodes[node].eni);
        moto::call(&address.to_string(), "ReplaceRoute", &pairs(&swap)).to_bytes()
    });
    let run = async || -> Result<()> {
        let mut calls = JoinSet::new();
        for number in 0..MANY {
            let request = requests[number % 2].clone();
            calls.spawn(async move {
                let mut socket = TcpStream::connect(address).await?;
                socket.write_all(&request).await?;
                let mut answer = Vec::new();
                socket.read_to_end(&mut answer).await?;
                ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                Ok(())
            });
        }
        let all_there = async {
            while proxy.mark() < MANY {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_there).await.context("not all calls arrived")?;
        ensure!(proxy.calls().iter().all(|call| call.outcome == Outcome::Pending));
        proxy.lift(rule);
        while let Some(done) = calls.join_next().await {
            done??;
        }
        Ok(())
    };
    scene.hosts[0].ns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run())
    })?;
    let calls = proxy.calls();
    ensure!(calls.iter().all(|call| call.outcome == Outcome::Answered(200)));
    let orders: BTreeSet<usize> = calls.iter().filter_map(|call| Some(call.executed?.order)).collect();
    ensure!(orders == (0..MANY).collect(), "not each was executed once");
    let last = calls.iter().max_by_key(|call| call.executed.map(|done| done.order)).unwrap();
    let owner = &scene.world.nodes[scene.owner(0)?];
    ensure!(
        last.parameter("NetworkInterfaceId") == owner.eni,
        "the journal has another order than the server"
    );
    Ok(())
}
