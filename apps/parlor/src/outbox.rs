//! The way out of the control thread: straight to the gateway, or over a thread that keeps on the
//! disk what has to outlive the process, before anybody hears of it.

use parlor_gateway::Gateway;
use parlor_node::{
    api::{ApiError, ApiErrorCode},
    io::{Kept, Output},
};
use parlor_storage::{Change, Storage};
use parlor_webhook::Webhooks;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Outputs that wait for the disk; more make the control thread wait.
const WAITING_MAX: usize = 4096;
/// Outputs that go together, so that one write keeps what many have to say.
const BATCH: usize = 256;

/// Where the outputs of a node go.
pub enum Outlet {
    /// Nothing has to be kept.
    Gateway(Gateway),
    /// What has to be kept is kept first.
    Outbox(SyncSender<Output>),
}

/// What keeps things.
struct Keepers {
    gateway: Gateway,
    webhooks: Option<Webhooks>,
    storage: Option<Arc<Storage>>,
}

impl Outlet {
    /// An outlet with a thread of its own if anything is kept. It ends with the outlet.
    pub fn new(
        gateway: Gateway,
        webhooks: Option<Webhooks>,
        storage: Option<Arc<Storage>>,
    ) -> io::Result<(Outlet, Option<JoinHandle<()>>)> {
        if webhooks.is_none() && storage.is_none() {
            return Ok((Outlet::Gateway(gateway), None));
        }
        let (sender, outputs) = sync_channel(WAITING_MAX);
        let keepers = Keepers { gateway, webhooks, storage };
        let run = move || keepers.run(&outputs);
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

impl Keepers {
    fn run(&self, outputs: &Receiver<Output>) {
        while let Ok(first) = outputs.recv() {
            let batch: Vec<Output> =
                std::iter::once(first).chain(outputs.try_iter().take(BATCH)).collect();
            if let Some(webhooks) = &self.webhooks {
                webhooks.record(batch.iter().filter_map(|output| match output {
                    Output::Webhook(event) => Some(&**event),
                    _ => None,
                }));
            }
            let kept = self.keep(&batch);
            for output in batch {
                self.gateway.deliver(if kept { output } else { without_promise(output) });
            }
        }
    }

    /// Whether everything that has to be kept is on the disk.
    fn keep(&self, batch: &[Output]) -> bool {
        let Some(storage) = &self.storage else { return true };
        let changes: Vec<Change<'_>> = batch
            .iter()
            .filter_map(|output| match output {
                Output::Keep(Kept { kind, id, value }) => Some(Change::Put { kind, id, value }),
                Output::Forget { kind, id } => Some(Change::Remove { kind, id }),
                _ => None,
            })
            .collect();
        if changes.is_empty() {
            return true;
        }
        let kept = storage.commit(&changes);
        if let Err(error) = &kept {
            tracing::error!(%error, changes = changes.len(), "not kept");
        }
        kept.is_ok()
    }
}

/// Nobody may be told that something is done that the disk did not take.
fn without_promise(output: Output) -> Output {
    let Output::Reply { call, result } = &output else { return output };
    if result.is_err() {
        return output;
    }
    let message = "the storage does not take it".to_owned();
    let error = ApiError { code: ApiErrorCode::Internal, message, argument: None };
    Output::Reply { call: *call, result: Err(error).into() }
}
