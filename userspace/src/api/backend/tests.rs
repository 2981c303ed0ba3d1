//! Requests against a cluster that applies every change at once.

mod checks;
mod cloud;
mod create;
mod declare;
mod extend;
mod lifecycle;
mod look;
mod sets;
mod settings;
mod subnets;
mod verbs;

use super::fake::{Bench, FakeHost};
use crate::{
    api::{Answer, ApiError, CreateIp, ErrorKind, EventFilter, Given, Request},
    core::change::{Change, NewGrant, Outcome, Report},
    model::{NodeId, Switchback, Tag},
};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn wanted(address: &str) -> CreateIp {
    CreateIp {
        addresses: vec![Given::Argument(address.into())],
        netmask: None,
        each: false,
        except: vec![],
        group: None,
        separate: false,
        accept: None,
        devices: vec![],
        tag: None,
        priority: None,
        switchback: Switchback::Intelligent,
        extend_to: vec![],
        force: false,
        wait: false,
    }
}

fn create(address: &str) -> Request {
    Request::CreateIp(wanted(address))
}

fn create_on_all(address: &str) -> Request {
    Request::CreateIp(CreateIp { extend_to: vec!["all".into()], ..wanted(address) })
}

fn bench() -> Bench {
    Bench::new(FakeHost::usual())
}

impl Bench {
    async fn done(&self, request: Request) -> String {
        match self.ask(request).await.1 {
            Answer::Done { message } => message,
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, request: Request) -> ApiError {
        match self.ask(request).await.1 {
            Answer::Error(e) => e,
            other => panic!("{other:?}"),
        }
    }

    /// Grants, as the leader would.
    fn give(&self, name: &str, to: NodeId) {
        let tag = tag(name);
        let epoch = self.store.state().placements[&tag].epoch;
        self.store.change(&Change::Give { grants: vec![NewGrant { tag, to, epoch }] });
    }

    /// Reports, as the owner would.
    fn report(&self, name: &str, outcome: Outcome) {
        let tag = tag(name);
        let state = self.store.state();
        let placement = &state.placements[&tag];
        let node = placement.grant.unwrap().owner;
        let report = Report { tag, epoch: placement.epoch, outcome };
        self.store.change(&Change::Report { node, reports: vec![report] });
    }

    fn release(&self, name: &str) {
        let tag = tag(name);
        let epoch = self.store.state().placements[&tag].epoch;
        self.store.change(&Change::Release { tag, epoch });
    }
}
