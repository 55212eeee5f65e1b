//! The way out of the control thread: straight to the gateway, or over a thread that keeps
//! webhooks on the disk before anybody hears of what they report.

use parlor_gateway::Gateway;
use parlor_node::io::Output;
use parlor_webhook::Webhooks;
use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

/// Outputs that wait for the disk; more make the control thread wait.
const WAITING_MAX: usize = 4096;
/// Outputs that go together, so that one write keeps the events of many.
const BATCH: usize = 256;

/// Where the outputs of a node go.
pub enum Outlet {
    /// Nothing has to be kept.
    Gateway(Gateway),
    /// Webhooks are kept first.
    Outbox(SyncSender<Output>),
}

impl Outlet {
    /// An outlet with a thread of its own if there are webhooks. It ends with the outlet.
    pub fn new(
        gateway: Gateway,
        webhooks: Option<Webhooks>,
    ) -> io::Result<(Outlet, Option<JoinHandle<()>>)> {
        let Some(webhooks) = webhooks else { return Ok((Outlet::Gateway(gateway), None)) };
        let (sender, outputs) = sync_channel(WAITING_MAX);
        let run = move || run(&gateway, &webhooks, &outputs);
        let thread = thread::Builder::new().name("outbox".to_owned()).spawn(run)?;
        Ok((Outlet::Outbox(sender), Some(thread)))
    }

    /// Does what a node wants done outside, in order. Media commands are not for it.
    pub fn deliver(&self, output: Output) {
        match self {
            Outlet::Gateway(gateway) => gateway.deliver(output),
            Outlet::Outbox(sender) => {
                if sender.send(output).is_err() {
                    tracing::error!("the outbox has ended, an output is lost");
                }
            }
        }
    }
}

fn run(gateway: &Gateway, webhooks: &Webhooks, outputs: &Receiver<Output>) {
    while let Ok(first) = outputs.recv() {
        let batch: Vec<Output> =
            std::iter::once(first).chain(outputs.try_iter().take(BATCH)).collect();
        webhooks.record(batch.iter().filter_map(|output| match output {
            Output::Webhook(event) => Some(&**event),
            _ => None,
        }));
        batch.into_iter().for_each(|output| gateway.deliver(output));
    }
}
