use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Answer,
    answers::{replaced, tables},
    call, once, permit, scripted,
};
use crate::{Call, DryRun, Ec2, Purpose};

#[tokio::test]
async fn a_bounded_number_of_writes_is_in_flight() {
    let (sdk, fake) = scripted([replaced()]);
    *fake.delay.lock().unwrap() = Duration::from_millis(2);
    let sdk = Arc::new(sdk);
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let sdk = Arc::clone(&sdk);
            let vip = "10.9.0.1/32".parse().unwrap();
            tokio::spawn(async move { sdk.replace_route("rtb-1", vip, "eni-1", &call(), permit()).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fake.sent(), 200);
    assert_eq!(fake.most.load(Ordering::SeqCst), 32);
}

#[tokio::test]
async fn reads_do_not_wait_behind_writes() {
    let (sdk, fake) = scripted([Answer::Silence]);
    let sdk = Arc::new(sdk);
    let writes: Vec<_> = (0..100)
        .map(|_| {
            let sdk = Arc::clone(&sdk);
            let vip = "10.9.0.1/32".parse().unwrap();
            tokio::spawn(async move { sdk.replace_route("rtb-1", vip, "eni-1", &call(), permit()).await })
        })
        .collect();
    while fake.sent() < 32 {
        tokio::task::yield_now().await;
    }
    fake.script([tables(&["rtb-1"], None)]);
    assert_eq!(sdk.route_tables("vpc-1", &call()).await.unwrap().len(), 1);
    assert_eq!(fake.sent(), 33);
    for write in writes {
        write.abort();
    }
}

#[tokio::test]
async fn what_operators_ask_holds_up_nothing_that_is_in_service() {
    let (sdk, fake) = scripted([Answer::Silence]);
    let sdk = Arc::new(sdk);
    let asked = Call { purpose: Purpose::Inquiry, ..call() };
    let inquiries: Vec<_> = (0..100)
        .map(|n| {
            let (sdk, asked) = (Arc::clone(&sdk), asked.clone());
            tokio::spawn(async move {
                match n % 3 {
                    0 => sdk.route_tables("vpc-1", &asked).await.map(drop),
                    1 => sdk.describe_interface("eni-1", &asked).await.map(drop),
                    _ => sdk.may(&DryRun::DescribeAddresses, &asked).await,
                }
            })
        })
        .collect();
    while fake.sent() < 16 {
        tokio::task::yield_now().await;
    }
    fake.script([tables(&["rtb-1"], None)]);
    assert_eq!(sdk.route_tables("vpc-1", &call()).await.unwrap().len(), 1);
    assert_eq!(fake.sent(), 17, "no more of them are in flight");
    for inquiry in inquiries {
        inquiry.abort();
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_leaves_its_place() {
    let (sdk, fake) = scripted([Answer::Silence]);
    let sdk = Arc::new(sdk);
    for _ in 0..3 {
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let sdk = Arc::clone(&sdk);
                tokio::spawn(async move { sdk.elastic_ips_of("eni-1", &call()).await })
            })
            .collect();
        let before = fake.sent();
        while fake.sent() < before + 16 {
            tokio::task::yield_now().await;
        }
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }
    fake.script([tables(&[], None)]);
    assert_eq!(sdk.route_tables("vpc-1", &once()).await.unwrap(), []);
}
