use super::*;

/// A catalog, and ids that count up.
struct World {
    catalog: Catalog,
    next: u32,
    kept: BTreeMap<(&'static str, String), Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let config = CatalogConfig {
            rtmp_base_url: "rtmp://example.com/live".into(),
            whip_base_url: "https://example.com/w".into(),
        };
        World { catalog: Catalog::new(config), next: 0, kept: BTreeMap::new() }
    }

    fn ask(&mut self, request: Request) -> Answer {
        let next = &mut self.next;
        let answer = self.catalog.handle(
            &mut |prefix| {
                *next += 1;
                format!("{prefix}{next}")
            },
            request,
        );
        while let Some(change) = self.catalog.poll_change() {
            match change {
                Change::Keep { kind, id, value } => drop(self.kept.insert((kind, id), value)),
                Change::Forget { kind, id } => drop(self.kept.remove(&(kind, id))),
            }
        }
        answer
    }

    fn refusal(&mut self, request: Request) -> String {
        self.ask(request).unwrap_err().to_string()
    }

    /// What was kept makes the same catalog again.
    fn check_kept(&self) {
        let mut again = Catalog::new(self.catalog.config.clone());
        for ((kind, id), value) in &self.kept {
            assert!(again.restore(kind, id, value));
        }
        assert_eq!(again.ingress, self.catalog.ingress);
        assert_eq!(again.inbound, self.catalog.inbound);
        assert_eq!(again.outbound, self.catalog.outbound);
        assert_eq!(again.rules, self.catalog.rules);
    }
}

fn ingress(change: impl FnOnce(&mut proto::CreateIngressRequest)) -> Request {
    let mut request = proto::CreateIngressRequest {
        name: "n".into(),
        room_name: "e".into(),
        participant_identity: "i".into(),
        ..Default::default()
    };
    change(&mut request);
    Request::CreateIngress(request)
}

#[test]
fn an_ingress_is_made_changed_listed_and_deleted() {
    let mut world = World::new();
    let Ok(Response::Ingress(made)) = world.ask(ingress(|_| {})) else { panic!() };
    assert!(made.ingress_id.starts_with("IN_") && !made.stream_key.is_empty() && made.reusable);
    assert_eq!(
        (made.url.as_str(), made.enable_transcoding),
        ("rtmp://example.com/live", Some(true))
    );
    let whip = ingress(|request| request.input_type = proto::IngressInput::WhipInput.into());
    let Ok(Response::Ingress(whip)) = world.ask(whip) else { panic!() };
    assert_eq!(
        (whip.url.as_str(), whip.enable_transcoding),
        ("https://example.com/w", Some(false))
    );

    let update = proto::UpdateIngressRequest {
        ingress_id: made.ingress_id.clone(),
        room_name: "other".into(),
        enabled: Some(false),
        ..Default::default()
    };
    let Ok(Response::Ingress(changed)) = world.ask(Request::UpdateIngress(update)) else {
        panic!()
    };
    assert_eq!((changed.name.as_str(), changed.room_name.as_str()), ("n", "other"));
    let list = |room: &str, id: &str| {
        Request::ListIngress(proto::ListIngressRequest {
            room_name: room.into(),
            ingress_id: id.into(),
            ..Default::default()
        })
    };
    let count = |world: &mut World, request| match world.ask(request).unwrap() {
        Response::Ingresses(listed) => listed.items.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&mut world, list("", "")), 2);
    assert_eq!(count(&mut world, list("other", "")), 1);
    assert_eq!(count(&mut world, list("", &whip.ingress_id)), 1);
    world.check_kept();
    let delete = || {
        Request::DeleteIngress(proto::DeleteIngressRequest { ingress_id: made.ingress_id.clone() })
    };
    assert!(world.ask(delete()).is_ok());
    let text = "twirp error unknown: ingress does not exist";
    assert_eq!(world.refusal(delete()), text);
    assert_eq!(world.refusal(list("", "IN_x")), text);
    world.check_kept();
    assert_eq!(world.kept.len(), 1);
}

#[test]
fn an_ingress_is_checked_as_livekit_does() {
    let mut world = World::new();
    let prefix = "twirp error unknown: ";
    let mut refused = |change: fn(&mut proto::CreateIngressRequest), text: &str| {
        assert_eq!(world.refusal(ingress(change)), format!("{prefix}{text}"));
    };
    refused(|r| r.input_type = 9, "invalid ingress type");
    refused(|r| r.participant_identity.clear(), "invalid ingress: no participant identity");
    refused(
        |r| r.enable_transcoding = Some(false),
        "invalid transcoding bypass configuration: bypassing transcoding impossible with selected input type",
    );
    refused(
        |r| r.video = Some(proto::IngressVideoOptions { source: 2, ..Default::default() }),
        "invalid video parameters: invalid track source",
    );
    refused(|r| r.input_type = 2, "invalid ingress: missing URL parameter");
    refused(
        |r| (r.input_type, r.url) = (2, "ftp://x".into()),
        "invalid ingress: invalid url scheme ftp",
    );
    let pull = ingress(|r| (r.input_type, r.url) = (2, "https://x/y".into()));
    assert_eq!(world.ask(pull), Err(CatalogError::NoService));
    assert!(world.kept.is_empty());
}

fn inbound(numbers: &[&str], allowed: &[&str]) -> Request {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let trunk = proto::SipInboundTrunkInfo {
        numbers: texts(numbers),
        allowed_numbers: texts(allowed),
        allowed_addresses: vec!["192.0.2.0/24".into()],
        ..Default::default()
    };
    Request::CreateInboundTrunk(proto::CreateSipInboundTrunkRequest { trunk: Some(trunk) })
}

fn made_inbound(world: &mut World, request: Request) -> proto::SipInboundTrunkInfo {
    match world.ask(request) {
        Ok(Response::InboundTrunk(trunk)) => trunk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn inbound_trunks_do_not_overlap() {
    let mut world = World::new();
    let first = made_inbound(&mut world, inbound(&["+1 (23)"], &[]));
    assert!(first.sip_trunk_id.starts_with("ST_"));
    // Another form of the same number.
    let text = world.refusal(inbound(&["123"], &[]));
    assert!(text.starts_with("Conflicting inbound SIP Trunks: \"<new>\" and \"ST_"), "{text}");
    assert!(
        text.ends_with("using the same number(s) \"123\" without AllowedNumbers set"),
        "{text}"
    );
    made_inbound(&mut world, inbound(&["123"], &["+9"]));
    let text = world.refusal(inbound(&["+123"], &["9"]));
    assert!(text.ends_with("and AllowedNumber \"+9\""), "{text}");
    made_inbound(&mut world, inbound(&["+123"], &["8"]));
    made_inbound(&mut world, inbound(&[], &[]));
    // An update does not meet itself.
    let update = proto::SipInboundTrunkUpdate {
        name: Some("main".into()),
        numbers: Some(proto::ListUpdate { add: vec!["+4".into()], ..Default::default() }),
        ..Default::default()
    };
    let action = proto::update_sip_inbound_trunk_request::Action::Update(update);
    let update = proto::UpdateSipInboundTrunkRequest {
        sip_trunk_id: first.sip_trunk_id.clone(),
        action: Some(action),
    };
    let changed = made_inbound(&mut world, Request::UpdateInboundTrunk(update));
    assert_eq!((changed.numbers.len(), changed.name.as_str()), (2, "main"));
    let numbers = vec!["4".to_owned()];
    let list = proto::ListSipInboundTrunkRequest { numbers, ..Default::default() };
    let Ok(Response::InboundTrunks(listed)) = world.ask(Request::ListInboundTrunks(list)) else {
        panic!()
    };
    assert_eq!(listed.items.len(), 2, "the one, and the one for any number");
    world.check_kept();
}

#[test]
fn trunks_are_checked_as_livekit_does() {
    let mut world = World::new();
    let none = Request::CreateInboundTrunk(Default::default());
    assert_eq!(world.refusal(none), "missing trunk");
    let open = proto::CreateSipInboundTrunkRequest { trunk: Some(Default::default()) };
    let text = "for security, one of the fields must be set: AuthUsername+AuthPassword, AllowedAddresses or Numbers";
    assert_eq!(world.refusal(Request::CreateInboundTrunk(open)), text);
    let good = || proto::SipOutboundTrunkInfo {
        address: "sip.example.com".into(),
        numbers: vec!["+1".into()],
        ..Default::default()
    };
    let create = |trunk| {
        Request::CreateOutboundTrunk(proto::CreateSipOutboundTrunkRequest { trunk: Some(trunk) })
    };
    let mut refused = |change: fn(&mut proto::SipOutboundTrunkInfo), text: &str| {
        let mut trunk = good();
        change(&mut trunk);
        assert_eq!(world.refusal(create(trunk)), text);
    };
    refused(|t| t.sip_trunk_id = "ST_1".into(), "trunk id must not be set");
    refused(|t| t.numbers.clear(), "no trunk numbers specified");
    refused(|t| t.address.clear(), "no outbound address specified");
    refused(
        |t| t.address = "sip:a".into(),
        "trunk address should be a hostname or IP, not SIP URI",
    );
    refused(
        |t| t.headers = [("Contact".to_owned(), "x".to_owned())].into(),
        "invalid header name: header name Contact not supported",
    );
    refused(
        |t| t.headers = [("X-A".to_owned(), "v".repeat(1025))].into(),
        "invalid header value for X-A: header X-A: value too long (max 1024 characters)",
    );
    refused(|t| t.transport = 99, "unknown value");
    let Ok(Response::OutboundTrunk(made)) = world.ask(create(good())) else { panic!() };
    let get = |id: &str| {
        Request::GetOutboundTrunk(proto::GetSipOutboundTrunkRequest { sip_trunk_id: id.into() })
    };
    assert!(world.ask(get(&made.sip_trunk_id)).is_ok());
    assert_eq!(world.refusal(get("")), "trunk ID is required");
    assert_eq!(world.refusal(get("ST_x")), "requested sip trunk does not exist");
    world.check_kept();
    let delete = proto::DeleteSipTrunkRequest { sip_trunk_id: made.sip_trunk_id.clone() };
    let Ok(Response::Trunk(gone)) = world.ask(Request::DeleteTrunk(delete.clone())) else {
        panic!()
    };
    assert_eq!(gone.sip_trunk_id, made.sip_trunk_id);
    assert!(world.ask(Request::DeleteTrunk(delete)).is_ok() && world.kept.is_empty());
}

fn rule(name: &str, pin: &str, trunks: &[&str]) -> Request {
    let direct = proto::SipDispatchRuleDirect { room_name: "e".into(), pin: pin.into() };
    let rule = proto::sip_dispatch_rule::Rule::DispatchRuleDirect(direct);
    #[allow(deprecated)]
    Request::CreateRule(proto::CreateSipDispatchRuleRequest {
        rule: Some(proto::SipDispatchRule { rule: Some(rule) }),
        name: name.into(),
        trunk_ids: trunks.iter().map(|trunk| (*trunk).to_owned()).collect(),
        ..Default::default()
    })
}

#[test]
fn rules_do_not_overlap_and_the_older_form_works() {
    let mut world = World::new();
    let Ok(Response::Rule(made)) = world.ask(rule("r", "", &[])) else { panic!() };
    assert!(made.sip_dispatch_rule_id.starts_with("SDR_"));
    let text = "Dispatch rule for the same trunk, inbound number, number, and PIN combination already exists in dispatch rule";
    let id = &made.sip_dispatch_rule_id;
    assert_eq!(world.refusal(rule("s", "", &[])), format!("{text} {id:?} \"r\""));
    assert!(world.ask(rule("", "1234", &[])).is_ok());
    assert!(world.ask(rule("t", "", &["ST_1"])).is_ok());
    assert_eq!(world.refusal(Request::CreateRule(Default::default())), "missing rule");
    let update = proto::SipDispatchRuleUpdate {
        name: Some("q".into()),
        attributes: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    let update = |id: &str| {
        Request::UpdateRule(proto::UpdateSipDispatchRuleRequest {
            sip_dispatch_rule_id: id.into(),
            action: Some(proto::update_sip_dispatch_rule_request::Action::Update(update.clone())),
        })
    };
    let Ok(Response::Rule(changed)) = world.ask(update(id)) else { panic!() };
    assert_eq!((changed.name.as_str(), changed.attributes["k"].as_str()), ("q", "v"));
    let text = "requested sip dispatch rule does not exist";
    assert_eq!(world.refusal(update("SDR_x")), text);
    let list = |ids: &[&str], trunks: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Request::ListRules(proto::ListSipDispatchRuleRequest {
            dispatch_rule_ids: texts(ids),
            trunk_ids: texts(trunks),
            ..Default::default()
        })
    };
    let names = |world: &mut World, request| match world.ask(request).unwrap() {
        Response::Rules(listed) => listed.items.into_iter().map(|rule| rule.name).collect(),
        other => panic!("{other:?}"),
    };
    let listed: Vec<String> = names(&mut world, list(&["SDR_x", id], &[]));
    assert_eq!(listed, ["", "q"], "an empty one for each that is missing");
    let listed: Vec<String> = names(&mut world, list(&[], &["ST_1"]));
    assert_eq!(listed.len(), 3);
    world.check_kept();
    let delete = proto::DeleteSipDispatchRuleRequest { sip_dispatch_rule_id: id.clone() };
    assert!(world.ask(Request::DeleteRule(delete.clone())).is_ok());
    assert_eq!(world.refusal(Request::DeleteRule(delete)), text);
}

#[test]
fn lists_of_changes_are_checked() {
    let mut list = vec!["a".to_owned(), "b".to_owned()];
    let mut apply = |change: fn(&mut proto::ListUpdate)| {
        let mut update = proto::ListUpdate::default();
        change(&mut update);
        sip::apply_list(&mut list, Some(&update)).map(|()| list.join(""))
    };
    let refused = |text: &str| Err(CatalogError::Invalid(text.to_owned()));
    assert_eq!(apply(|_| {}), refused("unsupported list update operation"));
    assert_eq!(apply(|u| u.add = vec![String::new()]), refused("empty element in the list"));
    let both = |u: &mut proto::ListUpdate| (u.clear, u.add) = (true, vec!["c".into()]);
    assert_eq!(apply(both), refused("cannot clear and change the list at the same time"));
    let change = |u: &mut proto::ListUpdate| {
        (u.add, u.remove) = (vec!["c".into(), "b".into()], vec!["a".into()]);
    };
    assert_eq!(apply(change).as_deref(), Ok("bc"));
    assert_eq!(apply(|u| u.set = vec!["z".into()]).as_deref(), Ok("z"));
    assert_eq!(apply(|u| u.clear = true).as_deref(), Ok(""));
}

#[test]
fn objects_are_bounded_and_pages_are_as_long_as_asked() {
    let mut world = World::new();
    for number in 0..OBJECTS_MAX {
        let id = format!("IN_{number:05}");
        let info = proto::IngressInfo { ingress_id: id.clone(), ..Default::default() };
        world.catalog.ingress.insert(id, info);
    }
    assert_eq!(world.ask(ingress(|_| {})), Err(CatalogError::TooMany));
    let page = |after: &str, limit| proto::Pagination { after_id: after.into(), limit };
    let objects: BTreeMap<String, u32> =
        (0..1_500).map(|number| (format!("{number:04}"), number)).collect();
    let all = |page: Option<&proto::Pagination>| listed(&objects, &[], page, |_| true);
    assert_eq!(all(None).len(), 1_500);
    assert_eq!(all(Some(&page("", 0))).len(), PAGE_MAX);
    assert_eq!(all(Some(&page("0001", 2))), [2, 3]);
}
