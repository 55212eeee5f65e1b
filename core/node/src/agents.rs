//! Agent workers and dispatches: between the wire and the rules of `parlor-agents`.

use crate::{
    Node,
    api::{ApiErrorCode, ApiResponse},
    calls::{Answer, error, invalid, no_room},
    config::exceeds,
    io::{Frame, Input, Output, SessionId},
    outside::Outside,
};
use livekit_protocol as proto;
use parlor_agents::{
    Answer as JobAnswer, DEPLOYMENT_BYTES_MAX, Dispatch, DispatchError, Event, Job, JobKind,
    JobStatus, Registration, WorkerKey,
};
use parlor_model::{DisconnectReason, Now, ParticipantSid, RoomName};
use parlor_room::{Command, Event as RoomEvent};
use parlor_signal::{info::participant_info, worker};
use proto::{server_message::Message, worker_message::Message as Said};
use std::collections::BTreeMap;

/// Most workers at once.
pub const WORKERS_MAX: usize = 10_000;

/// A worker's socket.
#[derive(Debug)]
pub(crate) struct WorkerLink {
    /// Whether it spoke text last.
    text: bool,
    /// The API key of its token, which signs the tokens of its agents.
    api_key: String,
    permissions: proto::ParticipantPermission,
}

fn key(session: SessionId) -> WorkerKey {
    WorkerKey(session.0)
}

fn nanoseconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Node {
    /// A worker with a token that lets it in.
    pub(crate) fn worker_connected(&mut self, now: Now, session: SessionId, api_key: String) {
        if self.shutting_down || self.workers.len() >= WORKERS_MAX {
            let body = "no more workers are taken".to_owned();
            return self.outside.outputs.push_back(Output::Refuse { session, status: 503, body });
        }
        let permissions = worker::default_permissions();
        self.workers.insert(session, WorkerLink { text: false, api_key, permissions });
        self.outside.outputs.push_back(Output::Accept { session });
        self.outside.agents.handle_connected(now, key(session));
    }

    pub(crate) fn worker_said(&mut self, now: Now, session: SessionId, frame: &Frame) {
        let Some(link) = self.workers.get_mut(&session) else { return };
        let decoded = match frame {
            Frame::Binary(bytes) => worker::decode_binary(bytes),
            Frame::Text(text) => worker::decode_text(text),
        };
        link.text = matches!(frame, Frame::Text(_));
        match decoded {
            Ok(Some(said)) => self.take_from_worker(now, session, said),
            Ok(None) => drop(self.outside.agents.is_registered(now, key(session))),
            Err(error) => {
                self.outside.counters.malformed_frames += 1;
                tracing::warn!(%error, "worker's socket closed");
                self.drop_worker(now, session);
            }
        }
    }

    fn drop_worker(&mut self, now: Now, session: SessionId) {
        if self.workers.remove(&session).is_some() {
            self.outside.outputs.push_back(Output::Close { session });
            self.outside.agents.handle_gone(now, key(session));
        }
    }

    fn take_from_worker(&mut self, now: Now, session: SessionId, said: Said) {
        let worker = key(session);
        match said {
            Said::Ping(ping) => {
                let timestamp = i64::try_from(now.unix.as_millis()).unwrap_or(i64::MAX);
                let pong = proto::WorkerPong { last_timestamp: ping.timestamp, timestamp };
                return self.tell_worker(session, &Message::Pong(pong));
            }
            Said::Register(request) => return self.register(now, session, request),
            _ if !self.outside.agents.is_registered(now, worker) => return,
            _ => {}
        }
        let agents = &mut self.outside.agents;
        match said {
            Said::Ping(_) | Said::Register(_) => {}
            Said::UpdateWorker(update) => {
                let available = update.status.is_some().then(|| {
                    !update.draining && update.status() == proto::WorkerStatus::WsAvailable
                });
                let available = if update.draining { Some(false) } else { available };
                agents.handle_worker_status(now, worker, available, update.load);
            }
            Said::Availability(response) => {
                let answer = JobAnswer {
                    available: response.available,
                    terminate: response.terminate,
                    identity: response.participant_identity,
                    name: response.participant_name,
                    metadata: response.participant_metadata,
                    attributes: response.participant_attributes.into_iter().collect(),
                };
                agents.handle_answer(now, worker, &response.job_id, answer);
            }
            Said::UpdateJob(update) => {
                let status = status_of(update.status());
                agents.handle_job_status(now, worker, &update.job_id, status, &update.error);
            }
            Said::MigrateJob(migrate) => agents.handle_migrate(now, worker, &migrate.job_ids),
            Said::SimulateJob(simulate) => {
                let room = RoomName::from(simulate.room.map_or(String::new(), |room| room.name));
                let participant = simulate.participant.map(|participant| participant.sid.into());
                agents.handle_simulate(now, worker, room, participant);
            }
        }
    }

    fn register(&mut self, now: Now, session: SessionId, request: proto::RegisterWorkerRequest) {
        let Ok(kind) = proto::JobType::try_from(request.r#type) else {
            return self.drop_worker(now, session);
        };
        let Some(link) = self.workers.get_mut(&session) else { return };
        if let Some(permissions) = &request.allowed_permissions {
            link.permissions = permissions.clone();
        }
        let registration = Registration {
            id: self.outside.sid("AW_"),
            kind: kind_of(kind),
            namespace: request.namespace().to_owned(),
            agent_name: request.agent_name,
            deployment: request.deployment,
        };
        let Registration { id, agent_name, namespace, .. } = &registration;
        let version = request.version;
        tracing::info!(worker = id, ?kind, agent_name, namespace, version, "worker registered");
        self.outside.agents.handle_register(now, key(session), registration);
    }

    fn tell_worker(&mut self, session: SessionId, message: &Message) {
        let Some(link) = self.workers.get(&session) else { return };
        let text = if link.text { worker::encode_text(message) } else { None };
        let frame = text.map_or_else(|| Frame::Binary(worker::encode_binary(message)), Frame::Text);
        self.outside.outputs.push_back(Output::Frame { session, frame });
    }

    /// Workers with this load, 0 to 1, or more are asked for no job (`agents.target_load`).
    pub fn configure_agents(&mut self, target_load: Option<f32>) {
        self.outside.agents.set_target_load(target_load);
    }

    /// Carries out what the rules about agents have decided.
    pub(crate) fn settle_agents(&mut self, now: Now) {
        while let Some(event) = self.outside.agents.poll_event() {
            match event {
                Event::Registered { worker } => {
                    let registration = self.outside.agents.registration(worker);
                    let worker_id = registration.map_or(String::new(), |known| known.id.clone());
                    let server_info = Some(self.outside.server.info());
                    let registered = proto::RegisterWorkerResponse {
                        worker_id,
                        server_info,
                        ..Default::default()
                    };
                    self.tell_worker(SessionId(worker.0), &Message::Register(registered));
                }
                Event::Drop { worker } => self.drop_worker(now, SessionId(worker.0)),
                Event::Offer { worker, job, resuming } => {
                    let job = self.outside.agents.job(&job).map(|job| self.job_info(job));
                    let offer = proto::AvailabilityRequest { job, resuming };
                    self.tell_worker(SessionId(worker.0), &Message::Availability(offer));
                }
                Event::Assign { worker, job, answer } => {
                    self.assign(now, SessionId(worker.0), &job, &answer);
                }
                Event::Terminate { worker, job } => {
                    let terminate = proto::JobTermination { job_id: job };
                    self.tell_worker(SessionId(worker.0), &Message::Termination(terminate));
                }
                Event::Remove { room, identity } => {
                    let Ok(sid) = self.find(room.as_str(), identity.as_str()) else { continue };
                    let leave = Command::Leave(sid, DisconnectReason::ParticipantRemoved);
                    let _ = self.command(now, room.as_str(), leave);
                }
                Event::Changed { room, dispatch } => self.keep_dispatch(&room, &dispatch),
            }
        }
    }

    fn assign(&mut self, now: Now, session: SessionId, job: &str, answer: &JobAnswer) {
        let Some(link) = self.workers.get(&session) else { return };
        let Some(known) = self.outside.agents.job(job) else { return };
        let registration = self.outside.agents.registration(key(session));
        let agent = worker::Agent {
            room: known.room.as_str(),
            identity: &answer.identity,
            name: &answer.name,
            metadata: &answer.metadata,
            attributes: &answer.attributes,
            agent_name: registration.map_or("", |registration| &registration.agent_name),
            permissions: &link.permissions,
        };
        let keys = &self.outside.config.api_keys;
        let token = worker::agent_token(agent, &link.api_key, keys, now.unix);
        tracing::info!(room = agent.room, job, identity = agent.identity, "job assigned");
        let job = Some(self.job_info(known));
        let assignment = proto::JobAssignment { job, url: None, token };
        self.tell_worker(session, &Message::Assignment(assignment));
    }

    /// A job as workers and the API are told of it.
    fn job_info(&self, job: &Job) -> proto::Job {
        let host = self.hosts.get(&job.room);
        let cx: &Outside = &self.outside;
        let room = match host {
            Some(host) => cx.server.room(&host.room, &host.turn_password),
            None => proto::Room { name: job.room.to_string(), ..Default::default() },
        };
        let participant = job.participant.as_ref();
        let participant = participant.and_then(|sid| host?.room.participant(sid));
        let participant = participant.map(|known| participant_info(known, &cx.config.region));
        // Of who has not come back after a restart no more is known.
        let participant = participant.or_else(|| {
            let (sid, identity) = (job.participant.as_ref()?, job.participant_identity.as_ref()?);
            let (sid, identity) = (sid.to_string(), identity.to_string());
            Some(proto::ParticipantInfo { sid, identity, ..Default::default() })
        });
        let dispatch = cx.agents.dispatch_of(job);
        let state = proto::JobState {
            status: match job.status {
                JobStatus::Pending => proto::JobStatus::JsPending,
                JobStatus::Running => proto::JobStatus::JsRunning,
                JobStatus::Success => proto::JobStatus::JsSuccess,
                JobStatus::Failed => proto::JobStatus::JsFailed,
            }
            .into(),
            error: job.error.clone(),
            started_at: nanoseconds(job.started_unix),
            ended_at: nanoseconds(job.ended_unix),
            updated_at: nanoseconds(job.updated_unix),
            participant_identity: job.identity.to_string(),
            worker_id: job.worker_id.clone(),
            ..Default::default()
        };
        #[allow(deprecated)]
        proto::Job {
            id: job.id.clone(),
            dispatch_id: job.dispatch.clone().unwrap_or_default(),
            r#type: match job.kind {
                JobKind::Room => proto::JobType::JtRoom,
                JobKind::Publisher => proto::JobType::JtPublisher,
                JobKind::Participant => proto::JobType::JtParticipant,
            }
            .into(),
            room: Some(room),
            participant,
            namespace: job.namespace.clone(),
            metadata: dispatch.map_or(String::new(), |dispatch| dispatch.metadata.clone()),
            agent_name: job.agent_name.clone(),
            state: Some(state),
            deployment: dispatch.map_or(String::new(), |dispatch| dispatch.deployment.clone()),
            attributes: dispatch
                .map(|dispatch| dispatch.attributes.clone().into_iter().collect())
                .unwrap_or_default(),
            ..Default::default()
        }
    }

    fn dispatch_info(&self, dispatch: &Dispatch, jobs: Vec<proto::Job>) -> proto::AgentDispatch {
        let restart_policy = match dispatch.restarts {
            true => proto::JobRestartPolicy::JrpOnFailure,
            false => proto::JobRestartPolicy::JrpNever,
        };
        proto::AgentDispatch {
            id: dispatch.id.clone(),
            agent_name: dispatch.agent_name.clone(),
            room: dispatch.room.to_string(),
            metadata: dispatch.metadata.clone(),
            state: Some(proto::AgentDispatchState {
                jobs,
                created_at: nanoseconds(dispatch.created_unix),
                deleted_at: 0,
            }),
            restart_policy: restart_policy.into(),
            deployment: dispatch.deployment.clone(),
            attributes: dispatch.attributes.clone().into_iter().collect(),
        }
    }

    /// A room has begun: the agents that its creator named are called, or, where none was named,
    /// those that come by themselves.
    pub(crate) fn call_agents(
        &mut self,
        now: Now,
        room: &RoomName,
        agents: Vec<proto::RoomAgentDispatch>,
    ) {
        let calls = if agents.is_empty() { vec![Default::default()] } else { agents };
        for call in calls {
            if let Err(error) = self.dispatch(now, room, call) {
                tracing::warn!(%room, %error, "agents not called");
            }
        }
    }

    fn dispatch(
        &mut self,
        now: Now,
        room: &RoomName,
        call: proto::RoomAgentDispatch,
    ) -> Result<String, DispatchError> {
        let id = self.outside.sid("AD_");
        let dispatch = Dispatch {
            id: id.clone(),
            room: room.clone(),
            restarts: call.restart_policy() == proto::JobRestartPolicy::JrpOnFailure,
            agent_name: call.agent_name,
            metadata: call.metadata,
            deployment: call.deployment,
            attributes: call.attributes.into_iter().collect(),
            created_unix: now.unix,
        };
        self.outside.agents.handle_dispatch(now, dispatch)?;
        Ok(id)
    }

    pub(crate) fn listed(&self, dispatch: &Dispatch) -> proto::AgentDispatch {
        let jobs = self.outside.agents.jobs_of(&dispatch.room, &dispatch.id);
        self.dispatch_info(dispatch, jobs.map(|job| self.job_info(job)).collect())
    }

    pub(crate) fn create_dispatch(
        &mut self,
        now: Now,
        request: proto::CreateAgentDispatchRequest,
    ) -> Answer {
        let call = proto::RoomAgentDispatch {
            restart_policy: request.restart_policy,
            agent_name: request.agent_name,
            metadata: request.metadata,
            deployment: request.deployment,
            attributes: request.attributes,
        };
        self.check_dispatch(&call)?;
        let room = RoomName::from(request.room);
        if self.outside.config.room_rules.auto_create {
            self.check_room_for_more()?;
            let settings = self.outside.config.room.clone();
            if self.ensure_room(now, &room, settings) {
                self.call_agents(now, &room, Vec::new());
            }
        } else if !self.hosts.contains_key(&room) {
            return Err(no_room());
        }
        self.reschedule(&room);
        let id = self.dispatch(now, &room, call).map_err(refusal)?;
        if self.hosts.get(&room).is_some_and(|host| !host.is_kept) {
            self.keep_room(&room);
        }
        let known = self.outside.agents.dispatches(&room).unwrap_or_default();
        let known = known.iter().find(|dispatch| dispatch.id == id).ok_or_else(no_room)?;
        Ok(ApiResponse::Dispatch(self.listed(known)))
    }

    /// LiveKit's limits of what is said to an agent.
    pub(crate) fn check_dispatch(
        &self,
        call: &proto::RoomAgentDispatch,
    ) -> Result<(), crate::api::ApiError> {
        let deployment = &call.deployment;
        if deployment.len() > DEPLOYMENT_BYTES_MAX {
            let text = format!("deployment exceeds {DEPLOYMENT_BYTES_MAX} bytes");
            return Err(error(ApiErrorCode::InvalidArgument, &text));
        }
        if deployment.contains('_') {
            let text = "deployment contains reserved character '_'";
            return Err(error(ApiErrorCode::InvalidArgument, text));
        }
        if let Some(at) = deployment.bytes().position(|byte| byte <= b' ' || byte == 0x7f) {
            let text = format!("deployment contains whitespace or control byte at position {at}");
            return Err(error(ApiErrorCode::InvalidArgument, &text));
        }
        let limits = &self.outside.config.limits;
        if exceeds(call.metadata.len(), limits.metadata_bytes) {
            let limit = limits.metadata_bytes.to_string();
            return Err(invalid("metadata size exceeds limits", &limit));
        }
        let attributes: BTreeMap<String, String> = call.attributes.clone().into_iter().collect();
        let bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
        if exceeds(bytes, limits.attributes_bytes) {
            let limit = limits.attributes_bytes.to_string();
            return Err(invalid("attribute size exceeds limits", &limit));
        }
        Ok(())
    }

    pub(crate) fn delete_dispatch(
        &mut self,
        now: Now,
        request: proto::DeleteAgentDispatchRequest,
    ) -> Answer {
        let room = RoomName::from(request.room);
        let known = self.outside.agents.dispatches(&room).ok_or_else(no_room)?;
        let known = known.iter().find(|dispatch| dispatch.id == request.dispatch_id);
        let before = self.listed(known.ok_or_else(|| refusal(DispatchError::NotFound))?);
        let id = &request.dispatch_id;
        self.outside.agents.handle_delete(now, &room, id).map_err(refusal)?;
        Ok(ApiResponse::Dispatch(before))
    }

    pub(crate) fn list_dispatches(&self, request: &proto::ListAgentDispatchRequest) -> Answer {
        let room = RoomName::from(&*request.room);
        let known = self.outside.agents.dispatches(&room).ok_or_else(no_room)?;
        let id = &request.dispatch_id;
        let asked = known.iter().filter(|known| id.is_empty() || known.id == *id);
        let agent_dispatches = asked.map(|known| self.listed(known)).collect();
        let listed = proto::ListAgentDispatchResponse { agent_dispatches };
        Ok(ApiResponse::Dispatches(listed))
    }

    /// Every worker's socket ends with the server.
    pub(crate) fn close_workers(&mut self) {
        for session in std::mem::take(&mut self.workers).into_keys() {
            self.outside.outputs.push_back(Output::Close { session });
        }
    }

    /// Whether an input is of a worker; then it is taken.
    pub(crate) fn takes_worker_input(&mut self, now: Now, input: &Input) -> bool {
        match input {
            Input::Frame { session, frame } if self.workers.contains_key(session) => {
                self.worker_said(now, *session, frame);
            }
            Input::Closed { session } if self.workers.remove(session).is_some() => {
                self.outside.agents.handle_gone(now, key(*session));
            }
            _ => return false,
        }
        true
    }
}

fn refusal(why: DispatchError) -> crate::api::ApiError {
    let code = match why {
        DispatchError::NotFound => ApiErrorCode::NotFound,
        DispatchError::TooMany => ApiErrorCode::ResourceExhausted,
    };
    error(code, &why.to_string())
}

pub(crate) fn kind_of(kind: proto::JobType) -> JobKind {
    match kind {
        proto::JobType::JtRoom => JobKind::Room,
        proto::JobType::JtPublisher => JobKind::Publisher,
        proto::JobType::JtParticipant => JobKind::Participant,
    }
}

fn status_of(status: proto::JobStatus) -> JobStatus {
    match status {
        proto::JobStatus::JsPending => JobStatus::Pending,
        proto::JobStatus::JsRunning => JobStatus::Running,
        proto::JobStatus::JsSuccess => JobStatus::Success,
        proto::JobStatus::JsFailed => JobStatus::Failed,
    }
}

impl crate::host::Host {
    /// Somebody is in the room: an agent, or somebody for whom agents may be called.
    pub(crate) fn tell_agents_of_join(&self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let Some(participant) = self.room.participant(sid) else { return };
        let room = self.room.name();
        if participant.is_dependent() {
            cx.agents.handle_agent_joined(room, &participant.info.identity);
        } else {
            let identity = participant.info.identity.clone();
            cx.agents.handle_joined(now, room, sid.clone(), identity);
        }
    }

    /// What of a room's events is the concern of agents.
    pub(crate) fn tell_agents(&self, cx: &mut Outside, now: Now, event: &RoomEvent) {
        let room = self.room.name();
        match event {
            RoomEvent::TrackPublished { participant, .. } => {
                cx.agents.handle_published(now, room, participant);
            }
            RoomEvent::Left { participant, .. } => {
                cx.agents.handle_left(now, room, participant);
                let Some(gone) = self.room.participant(participant) else { return };
                let identity = &gone.info.identity;
                // Who comes back under the same identity has not left.
                if self.room.participant_by_identity(identity.as_str()).is_none() {
                    cx.agents.handle_agent_left(now, room, identity);
                }
            }
            RoomEvent::Closed => cx.agents.handle_room_closed(now, room),
            _ => {}
        }
    }
}
