//! What outlives the process: rooms and dispatches that the API has made, and the catalog.

use crate::{
    Node,
    api::{ApiError, ApiErrorCode, ApiResponse},
    calls::{Answer, error},
    host::Host,
    io::{Kept, Output},
    rooms::room_settings,
};
use livekit_protocol as proto;
use parlor_agents::{Dispatch, Job, JobStatus};
use parlor_catalog::{CatalogError, Change, Request};
use parlor_model::{Now, RoomName};
use parlor_room::{Room, RoomSettings};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const ROOM: &str = "room";
const DISPATCH: &str = "agent dispatch";

/// Every kind of object that a node keeps, rooms first: what is of a room needs it.
pub fn kept_kinds() -> impl Iterator<Item = &'static str> {
    [ROOM, DISPATCH].into_iter().chain(parlor_catalog::KINDS)
}

#[derive(Serialize, Deserialize)]
struct KeptRoom {
    sid: String,
    turn_password: String,
    created_unix_ms: u64,
    configuration: proto::RoomConfiguration,
}

impl Node {
    /// Takes back what was kept when the process ran before. Nothing else may have happened yet.
    pub(crate) fn restore(&mut self, now: Now, objects: Vec<Kept>) {
        for Kept { kind, id, value } in objects {
            let restored = match kind.as_str() {
                ROOM => self.restore_room(now, &id, &value),
                DISPATCH => self.restore_dispatch(now, &value),
                kind => self.catalog.restore(kind, &id, &value),
            };
            if !restored {
                tracing::error!(kind, id, "what was kept cannot be read, or has lost its room");
            }
        }
    }

    fn restore_room(&mut self, now: Now, name: &str, value: &[u8]) -> bool {
        let Ok(kept) = serde_json::from_slice::<KeptRoom>(value) else { return false };
        let name = RoomName::from(name);
        let settings = room_settings(&self.outside.config.room, &kept.configuration);
        let created = Duration::from_millis(kept.created_unix_ms);
        let room = Room::restore(name.clone(), kept.sid.into(), settings, created, now);
        let shard = self.least_loaded_shard();
        let mut host = Host::with_room(&mut self.outside, room, shard, kept.turn_password);
        host.is_kept = true;
        self.outside.load.add(shard);
        self.hosts.insert(name.clone(), host);
        self.outside.agents.handle_room_created(now, name.clone());
        self.reschedule(&name);
        true
    }

    fn restore_dispatch(&mut self, now: Now, value: &[u8]) -> bool {
        let Ok(kept) = serde_json::from_slice::<proto::AgentDispatch>(value) else { return false };
        let state = kept.state.clone().unwrap_or_default();
        let nanoseconds = |time: i64| Duration::from_nanos(time.try_into().unwrap_or(0));
        let jobs = state.jobs.iter().map(|job| {
            let state = job.state.clone().unwrap_or_default();
            let kind = crate::agents::kind_of(job.r#type());
            let mut restored = Job::new(job.id.clone(), kept.room.as_str().into(), kind);
            restored.participant = job.participant.as_ref().map(|p| p.sid.as_str().into());
            let identity = job.participant.as_ref().map(|p| p.identity.as_str().into());
            restored.participant_identity = identity;
            restored.agent_name = job.agent_name.clone();
            #[allow(deprecated)]
            {
                restored.namespace = job.namespace.clone();
            }
            restored.status = match state.status() {
                proto::JobStatus::JsPending => JobStatus::Pending,
                proto::JobStatus::JsRunning => JobStatus::Running,
                proto::JobStatus::JsSuccess => JobStatus::Success,
                proto::JobStatus::JsFailed => JobStatus::Failed,
            };
            restored.started_unix = nanoseconds(state.started_at);
            restored.ended_unix = nanoseconds(state.ended_at);
            restored.error = state.error;
            restored.worker_id = state.worker_id;
            restored.identity = state.participant_identity.into();
            restored
        });
        let jobs = jobs.collect();
        let dispatch = Dispatch {
            restarts: kept.restart_policy() == proto::JobRestartPolicy::JrpOnFailure,
            id: kept.id.clone(),
            room: kept.room.into(),
            agent_name: kept.agent_name,
            metadata: kept.metadata,
            deployment: kept.deployment,
            attributes: kept.attributes.into_iter().collect(),
            created_unix: nanoseconds(state.created_at),
        };
        self.kept_dispatches.insert(kept.id);
        self.outside.agents.restore_dispatch(now, dispatch, jobs).is_ok()
    }

    /// The API has made this room, or changed it: from now on it outlives the process.
    pub(crate) fn keep_room(&mut self, name: &RoomName) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let is_new = !std::mem::replace(&mut host.is_kept, true);
        let created = host.room.created_unix().as_millis();
        let kept = KeptRoom {
            sid: host.room.sid().to_string(),
            turn_password: host.turn_password.clone(),
            created_unix_ms: u64::try_from(created).unwrap_or(u64::MAX),
            configuration: configuration(host.room.settings()),
        };
        self.keep(ROOM, name.to_string(), &kept);
        if is_new {
            let dispatches = self.outside.agents.dispatches(name).unwrap_or_default();
            let ids: Vec<String> = dispatches.iter().map(|known| known.id.clone()).collect();
            for id in ids {
                self.keep_dispatch(name, &id);
            }
        }
    }

    /// The room is no more. What ends with the server is there again at the next start.
    pub(crate) fn forget_room(&mut self, name: &RoomName) {
        if !self.shutting_down {
            self.forget(ROOM, name.to_string());
        }
    }

    /// A dispatch is not as it was.
    pub(crate) fn keep_dispatch(&mut self, room: &RoomName, id: &str) {
        if self.shutting_down {
            return;
        }
        let dispatches = self.outside.agents.dispatches(room).unwrap_or_default();
        match dispatches.iter().find(|known| known.id == id) {
            Some(known) if self.hosts.get(room).is_some_and(|host| host.is_kept) => {
                let listed = self.listed(known);
                self.kept_dispatches.insert(id.to_owned());
                self.keep(DISPATCH, id.to_owned(), &listed);
            }
            Some(_) => {}
            None if self.kept_dispatches.remove(id) => self.forget(DISPATCH, id.to_owned()),
            None => {}
        }
    }

    /// A call of the Ingress or SIP service about what is registered.
    pub(crate) fn call_catalog(&mut self, request: Request) -> Answer {
        let outside = &mut self.outside;
        let answer = self.catalog.handle(&mut |prefix| outside.sid(prefix), request);
        while let Some(change) = self.catalog.poll_change() {
            self.outside.outputs.push_back(match change {
                Change::Keep { kind, id, value } => {
                    Output::Keep(Kept { kind: kind.into(), id, value })
                }
                Change::Forget { kind, id } => Output::Forget { kind, id },
            });
        }
        answer.map(ApiResponse::Catalog).map_err(|refusal| {
            let code = match refusal {
                CatalogError::Invalid(_) => ApiErrorCode::InvalidArgument,
                CatalogError::NotFound(_) => ApiErrorCode::NotFound,
                CatalogError::NoService => ApiErrorCode::Unavailable,
                CatalogError::TooMany => {
                    return error(ApiErrorCode::ResourceExhausted, &refusal.to_string());
                }
            };
            ApiError { code, message: refusal.to_string(), argument: None }
        })
    }

    fn keep(&mut self, kind: &'static str, id: String, object: &impl Serialize) {
        // By way of a value, whose maps are sorted.
        let value = serde_json::to_value(object).unwrap_or_default().to_string().into_bytes();
        self.outside.outputs.push_back(Output::Keep(Kept { kind: kind.into(), id, value }));
    }

    fn forget(&mut self, kind: &'static str, id: String) {
        self.outside.outputs.push_back(Output::Forget { kind, id });
    }

    /// Where applications are told to send media for an ingress.
    pub fn configure_ingress(&mut self, config: parlor_catalog::CatalogConfig) {
        self.catalog = parlor_catalog::Catalog::new(config);
    }
}

/// The settings of a room as the protocol has them; [`room_settings`] reads them again.
fn configuration(settings: &RoomSettings) -> proto::RoomConfiguration {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let delay = settings.playout_delay.unwrap_or_default();
    proto::RoomConfiguration {
        empty_timeout: seconds(settings.empty_timeout),
        departure_timeout: seconds(settings.departure_timeout),
        max_participants: settings.max_participants,
        metadata: settings.metadata.clone(),
        min_playout_delay: delay.min_ms,
        max_playout_delay: delay.max_ms,
        sync_streams: settings.sync_streams,
        tags: settings.tags.clone().into_iter().collect(),
        ..Default::default()
    }
}
