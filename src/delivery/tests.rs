//! The stage by clocks that people set: its own lanes, lease keepers and door over the real ledger, on SQLite, with a
//! provider whose answers the test gives. Time passes, and clocks change, when a test says so.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::claiming::{Claiming, Taken};
use super::context::{DispatchContext, LaneSettings};
use super::decide::OnUnknown;
use super::desk::Desk;
use super::door::Door;
use super::held::Held;
use super::lane::Lane;
use super::lease_watch::LeaseWatch;
use super::pacing::Pacing;
use super::recovery::LeaseKeeper;
use super::rules::{HouseRules, NamedZone, TemplateRules};
use super::schedule::Schedule;
use super::templates::Templates;
use super::under_way::UnderWay;
use crate::adapters::sql::Database;
use crate::domain::channel::Channel;
use crate::domain::preferences::{Preferences, QuietHours};
use crate::domain::recipient::{Device, Platform, Recipient};
use crate::ports::clock::{Clock as _, SharedClock};
use crate::ports::contacts::Contacts as _;
use crate::ports::ledger::{NotificationLedger as _, NotificationView, State};
use crate::ports::manual_clock::ManualClock;
use crate::ports::provider::{Accepted, Message, Provider, SendError};
use crate::resilience::breaker::BreakerPolicy;
use crate::resilience::breaker_cell::BreakerCell;

const ADA: &str = "ada@example.com";
const BERLIN: &str = "Europe/Berlin";
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MINUTE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(15);
/// The only step of the schedule.
const STEP: Duration = MINUTE;
/// Of the machine's time: what has to come about does so sooner.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_set_forwards_send_nothing_twice() {
    let mut world = World::open().await;
    let (mut ann, mut bob) = (world.host("ann", noon()), world.host("bob", noon()));
    let id = world.submit(ann.now(), ADA).await;
    let lane = ann.start();
    let in_hand = world.arrives().await;
    // Its lease is over by Bob's clock, then by Ann's too. Two rules keep it hers all the same: only what waits is
    // claimed, and a lease is over when it was not renewed for its whole length of steady time.
    for look in 0..8 {
        match look {
            2 => bob.clock.set(HOUR),
            4 => ann.clock.set(HOUR),
            _ => {}
        }
        ann.look().await;
        bob.look().await;
        assert_eq!(bob.takes().await, Vec::<String>::new());
        assert_eq!(world.view(&id).await.state, "sending");
        for host in [&ann, &bob] {
            host.clock.pass(LEASE / 3);
        }
    }
    in_hand.says(Ok(Accepted::default()));
    lane.end().await;
    let sent = world.view(&id).await;
    assert_eq!((sent.state.as_str(), sent.attempts.len()), ("sent", 1), "{sent:?}");
    assert_eq!(sent.attempts[0].outcome.as_deref(), Some("accepted"));
    assert!(world.parcels.try_recv().is_err(), "the provider got it once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_owner_left_is_taken_over_after_a_lease_whatever_the_clocks_show() {
    let world = World::open().await;
    for set in [HOUR, -HOUR] {
        let (dead, mut heir) = (world.host("dead", noon()), world.host("heir", noon()));
        let id = world.submit(noon(), ADA).await;
        assert_eq!(dead.takes().await, [id.as_str()]);
        heir.clock.set(set);
        let mut states = Vec::new();
        for _ in 0..4 {
            heir.look().await;
            states.push(world.view(&id).await.state);
            heir.clock.pass(LEASE / 3);
        }
        assert_eq!(states, ["sending", "sending", "sending", "retrying"]);
        assert_eq!(world.view(&id).await.attempts[0].outcome.as_deref(), Some("unknown"));
    }
}

/// As docs/operations.md says of clocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_clock_was_set_back_only_what_got_its_time_before_waits_for_it() {
    let mut world = World::open().await;
    let host = world.host("ann", noon());
    let at = |time: Timestamp| json!({"sendAt": time.to_string()});
    let half_an_hour = SignedDuration::from_mins(30);
    let overdue = world.submit_with(noon() - HOUR * 2, ADA, at(noon() - HOUR - half_an_hour)).await;
    let queued = world.submit(noon(), ADA).await;
    host.clock.set(-HOUR);
    let fresh = world.submit(host.now(), ADA).await;
    let scheduled = world.submit_with(host.now(), ADA, at(noon() - half_an_hour)).await;
    let lane = host.start();
    world.accepts(&[&overdue, &fresh]).await;
    host.clock.pass(30 * MINUTE);
    world.accepts(&[&scheduled]).await;
    host.clock.pass(30 * MINUTE - Duration::from_millis(1));
    world.is_passed_over(&queued, &host).await;
    host.clock.pass(Duration::from_millis(1));
    world.accepts(&[&queued]).await;
    lane.end().await;
    assert!(world.parcels.try_recv().is_err(), "each was sent once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_waits_for_its_step_though_the_clock_was_set_back_during_the_attempt() {
    let mut world = World::open().await;
    let host = world.host("ann", noon());
    let id = world.submit(noon(), ADA).await;
    let lane = host.start();
    let in_hand = world.arrives().await;
    host.clock.set(-HOUR);
    in_hand.says(Err(SendError::Transient("503".to_owned())));
    let waiting = world.until(&id, |shown| shown.state == "retrying").await;
    let wait = Duration::try_from(due(&waiting).duration_since(host.now())).expect("it is to come");
    assert!((STEP..=STEP + STEP / 10).contains(&wait), "{wait:?}");
    host.clock.pass(wait);
    world.accepts(&[&id]).await;
    lane.end().await;
    assert_eq!(world.view(&id).await.attempts.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_hours_last_until_seven_on_the_wall_in_the_nights_that_change_the_clocks() {
    // From half past ten: seven hours and a half in spring, nine and a half in autumn.
    for (evening, morning) in
        [("2026-03-28T21:30:00Z", "2026-03-29T05:00:00Z"), ("2026-10-24T20:30:00Z", "2026-10-25T06:00:00Z")]
    {
        let (evening, morning) = (time(evening), time(morning));
        let mut world = World::open().await;
        let host = world.host("ann", evening);
        world.has_quiet_hours("ada", evening).await;
        let id = world.submit(evening, "ada").await;
        let lane = host.start();
        let waiting = world.until(&id, |shown| shown.reason.as_deref() == Some("quiet hours")).await;
        assert_eq!((waiting.state.as_str(), due(&waiting)), ("pending", morning));
        let night = Duration::try_from(morning.duration_since(evening)).expect("it comes after");
        host.clock.pass(night - MINUTE);
        world.is_passed_over(&id, &host).await;
        host.clock.pass(MINUTE);
        world.accepts(&[&id]).await;
        let wall = host.now().to_zoned(TimeZone::get(BERLIN).expect("a zone"));
        assert_eq!((wall.hour(), wall.minute()), (7, 0));
        lane.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_came_together_and_waited_for_the_morning_only_the_newer_is_sent() {
    let evening = time("2026-06-01T21:00:00Z");
    let mut world = World::open().await;
    let host = world.host("ann", evening);
    world.has_quiet_hours("ada", evening).await;
    let confirmation = json!({"template": "order_confirmation", "data": {
        "orderId": "4711", "amount": "99.10", "currency": "EUR", "orderDate": "2026-06-01T20:59:00Z"}});
    let older = world.submit_with(evening, "ada", confirmation).await;
    let newer = world.submit(evening, "ada").await;
    let lane = host.start();
    for id in [&older, &newer] {
        world.until(id, |shown| shown.reason.as_deref() == Some("quiet hours")).await;
    }
    host.clock.pass(8 * 60 * MINUTE);
    world.accepts(&[&newer]).await;
    lane.end().await;
    let replaced = world.view(&older).await;
    assert_eq!((replaced.state.as_str(), replaced.reason), ("suppressed", Some(format!("superseded by {newer}"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_that_is_too_much_for_one_message_is_sent_in_parts() {
    let settings = ("news/template.toml", "digest_window_ms = 60000\n");
    let words = ("news/body.txt", "{% for item in items %}{{ item.text }}{% endfor %}");
    let mut world = World::with(&[settings, words]).await;
    let mut host = world.host("ann", noon());
    // Three are more than the 512 KiB that a message may have.
    let text = "x".repeat(200 * 1024);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.submit_with(noon(), ADA, json!({"template": "news", "data": {"text": text}})).await);
    }
    host.clock.pass(MINUTE);
    let lane = host.start();
    world.accepts(&[&ids[0]]).await;
    lane.end().await;
    assert_eq!([world.view(&ids[1]).await.state, world.view(&ids[2]).await.state], ["sent", "pending"]);
    host.look().await;
    let lane = host.start();
    world.accepts(&[&ids[2]]).await;
    lane.end().await;
    assert_eq!(world.view(&ids[2]).await.state, "sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_time_of_its_own_leaves_when_the_clock_shows_it() {
    // In the hour after the one that is skipped, and in the second of the two that are alike; each an hour away.
    for (now, send_at) in
        [("2026-03-29T00:30:00Z", "2026-03-29T03:30:00+02:00"), ("2026-10-25T00:30:00Z", "2026-10-25T02:30:00+01:00")]
    {
        let mut world = World::open().await;
        let host = world.host("ann", time(now));
        let id = world.submit_with(host.now(), ADA, json!({"sendAt": send_at})).await;
        let lane = host.start();
        let almost = SignedDuration::from_mins(59);
        host.clock.set(almost);
        world.is_passed_over(&id, &host).await;
        host.clock.set(-almost);
        host.clock.pass(59 * MINUTE);
        world.is_passed_over(&id, &host).await;
        host.clock.pass(MINUTE);
        world.accepts(&[&id]).await;
        lane.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_by_a_clock_stays_so_when_the_clock_is_set_back() {
    let mut world = World::open().await;
    let mut host = world.host("ann", noon());
    let [send_at, expires_at] = [20_u32, 30].map(|minutes| (noon() + minutes * MINUTE).to_string());
    let id = world.submit_with(noon(), ADA, json!({"sendAt": send_at, "expiresAt": expires_at})).await;
    host.look().await;
    assert_eq!(world.view(&id).await.state, "pending");
    host.clock.set(HOUR);
    host.look().await;
    assert_eq!(world.view(&id).await.state, "expired");
    host.clock.set(-HOUR);
    host.clock.pass(25 * MINUTE);
    let lane = host.start();
    let other = world.submit(host.now(), ADA).await;
    world.accepts(&[&other]).await;
    lane.end().await;
    assert_eq!(world.view(&id).await.state, "expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_goes_to_the_devices_that_are_not_suppressed() {
    let world = World::open().await;
    let host = world.host_with(Channel::Push, NamedZone::default(), "ann", noon());
    world.database.suppress(Channel::Push, &["t-1".to_owned(), "t-3".to_owned()], "lost").await.expect("suppresses");
    let cases: [(&str, &[&str], &[&str]); 3] = [
        ("ada", &["t-1", "t-2", "t-3", "t-4"], &["t-2", "t-4"]),
        ("bob", &["t-5", "t-3"], &["t-5"]),
        ("eve", &["t-6", "t-7"], &["t-6", "t-7"]),
    ];
    for (recipient, tokens, left) in cases {
        world.has_devices(recipient, tokens).await;
        world.submit_with(noon(), recipient, json!({"channel": "push"})).await;
        let taken = host.take().await;
        let message = &taken.begun.first().expect("it can be sent").0.message;
        let tokens: Vec<&str> = message.devices.iter().map(|device| device.token.as_str()).collect();
        assert_eq!((&tokens[..], message.to.as_deref()), (left, left.first().copied()), "{recipient}");
    }
    world.has_devices("joe", &["t-3", "t-1"]).await;
    let id = world.submit_with(noon(), "joe", json!({"channel": "push"})).await;
    let taken = host.take().await;
    assert!(taken.begun.is_empty(), "no device is left");
    let settled = taken.decided.first().expect("it is decided");
    assert_eq!((&settled.id, settled.state), (&id, State::Suppressed));
    assert_eq!(settled.reason.as_deref(), Some("the address is suppressed: lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_say_that_they_are_in_utc_unless_they_are_the_reader_s() {
    let world = World::open().await;
    let data = json!({"productId": "p-1", "productName": "Lamp", "outOfStockAt": "2026-01-15T10:30:00Z"});
    let stock = || json!({"template": "product_out_of_stock", "data": data});
    let (email, time_zone) = (Some(ADA.to_owned()), Some(BERLIN.to_owned()));
    let entry = Recipient { id: "ada".to_owned(), email, time_zone, ..Recipient::default() };
    world.database.put(entry, noon()).await.expect("is stored");
    let tokyo = NamedZone { name: "Asia/Tokyo".to_owned(), zone: TimeZone::get("Asia/Tokyo").expect("a zone") };
    for (recipient, zone, words) in [
        (ADA, NamedZone::default(), "January 15, 2026 at 10:30 AM UTC\n"),
        (ADA, tokyo, "January 15, 2026 at 7:30 PM\n"),
        ("ada", NamedZone::default(), "January 15, 2026 at 11:30 AM\n"),
    ] {
        let host = world.host_with(Channel::Email, zone, "ann", noon());
        world.submit_with(noon(), recipient, stock()).await;
        let taken = host.take().await;
        let body = &taken.begun.first().expect("it can be sent").0.message.body;
        assert!(body.contains(words), "{recipient}: {body}");
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

fn noon() -> Timestamp {
    time("2026-06-15T12:00:00Z")
}

/// When it is tried next.
#[track_caller]
fn due(shown: &NotificationView) -> Timestamp {
    time(shown.next_attempt_at.as_deref().expect("it waits for a time"))
}

/// Leaves each answer to the test.
struct Courier(mpsc::UnboundedSender<Parcel>);

/// What the provider has got, and not answered.
struct Parcel {
    id: String,
    answer: oneshot::Sender<Result<Accepted, SendError>>,
}

impl Parcel {
    fn says(self, answer: Result<Accepted, SendError>) {
        self.answer.send(answer).expect("the lane waits for it");
    }
}

#[async_trait]
impl Provider for Courier {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let (answer, answered) = oneshot::channel();
        // Nobody takes it when the test is over.
        let _ = self.0.send(Parcel { id: message.id.clone(), answer });
        answered.await.unwrap_or_else(|_| Err(SendError::Unknown("no answer".to_owned())))
    }
}

/// What the hosts share.
struct World {
    database: Database,
    templates: Arc<Templates>,
    door: Door,
    provider: Arc<dyn Provider>,
    parcels: mpsc::UnboundedReceiver<Parcel>,
    _folder: TempDir,
}

impl World {
    async fn open() -> Self {
        Self::with(&[]).await
    }

    /// With these files over the built-in templates.
    async fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join("templates");
        std::fs::create_dir(&own).expect("a folder");
        for (name, content) in files {
            let path = own.join(name);
            std::fs::create_dir_all(path.parent().expect("within the folder")).expect("a folder");
            std::fs::write(path, content).expect("is written");
        }
        let url = format!("sqlite://{}", folder.path().join("ledger.db").display());
        let database = Database::open(&url, 4).await.expect("opens");
        let templates = Arc::new(Templates::load(Some(&own), "en").expect("they are sound"));
        let door = Door {
            desk: Desk { ledger: Arc::new(database.clone()) },
            templates: Arc::clone(&templates),
            rules: Arc::new(TemplateRules::new(Arc::clone(&templates))),
            unsubscribe: None,
            exempt_categories: Vec::new(),
            contacts: Arc::new(database.clone()),
            channels: HashSet::from([Channel::Email, Channel::Push]),
        };
        let (sender, parcels) = mpsc::unbounded_channel();
        Self { database, templates, door, provider: Arc::new(Courier(sender)), parcels, _folder: folder }
    }

    /// An instance on a host whose clock shows this time.
    fn host(&self, name: &str, now: Timestamp) -> Host {
        self.host_with(Channel::Email, NamedZone::default(), name, now)
    }

    fn host_with(&self, channel: Channel, default_time_zone: NamedZone, name: &str, now: Timestamp) -> Host {
        let clock = Arc::new(ManualClock::at(now));
        let shared: SharedClock = clock.clone();
        let breaker = |name: &str| BreakerCell::new(name, BreakerPolicy::strict(5), Arc::clone(&shared));
        let context = DispatchContext {
            ledger: Arc::new(self.database.clone()),
            contacts: Arc::new(self.database.clone()),
            templates: Arc::clone(&self.templates),
            house: HouseRules { exempt_categories: Vec::new(), default_time_zone },
            throttle: None,
            unsubscribe: None,
            contact_patience: Duration::from_secs(86_400),
            schedule: Schedule::new(vec![STEP]),
            clock: Arc::clone(&shared),
            database: breaker("database"),
            lease: LEASE,
            batch: 10,
            max_in_flight: 10,
            // Of the machine's time: so soon a change of the clock is noticed.
            poll_interval: Duration::from_millis(5),
        };
        let lane = LaneSettings {
            channel,
            index: 0,
            lanes: 1,
            name: "mail".to_owned(),
            provider: Arc::clone(&self.provider),
            timeout: 3 * PATIENCE,
            max_in_flight: 10,
            on_unknown: OnUnknown::Retry,
            max_per_second: None,
            shared_rate: None,
            breaker: breaker("mail"),
            breakers_before: Vec::new(),
        };
        Host {
            clock,
            context: Arc::new(context),
            lane: Arc::new(lane),
            owner: name.to_owned(),
            held: Arc::default(),
            under_way: Arc::default(),
            watch: LeaseWatch::default(),
        }
    }

    async fn has_quiet_hours(&self, id: &str, now: Timestamp) {
        let (email, time_zone) = (Some(ADA.to_owned()), Some(BERLIN.to_owned()));
        let entry = Recipient { id: id.to_owned(), email, time_zone, ..Recipient::default() };
        self.database.put(entry, now).await.expect("is stored");
        let quiet_hours = Some(QuietHours { from: "22:00".to_owned(), to: "07:00".to_owned() });
        let preferences = Preferences { quiet_hours, ..Preferences::default() };
        self.database.set_preferences(id, &preferences).await.expect("are stored");
    }

    async fn has_devices(&self, id: &str, tokens: &[&str]) {
        let device = |token: &&str| Device { token: (*token).to_owned(), platform: Platform::Ios };
        let devices = tokens.iter().map(device).collect();
        let entry = Recipient { id: id.to_owned(), devices, ..Recipient::default() };
        self.database.put(entry, noon()).await.expect("is stored");
    }

    /// Asks for an e-mail, and returns its id.
    async fn submit(&self, now: Timestamp, recipient: &str) -> String {
        self.submit_with(now, recipient, json!({})).await
    }

    /// The same with more fields.
    async fn submit_with(&self, now: Timestamp, recipient: &str, more: Value) -> String {
        let data = json!({"orderId": "4711"});
        let mut body = json!({"channel": "email", "recipient": recipient, "template": "order_shipped", "data": data});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.door.submit(&body.to_string(), None, now).await.expect("is taken")
    }

    /// The next message that comes to the provider.
    async fn arrives(&mut self) -> Parcel {
        timeout(PATIENCE, self.parcels.recv()).await.expect("a message comes").expect("a provider is there")
    }

    /// These come to the provider, in any order and no others before them, and are accepted.
    async fn accepts(&mut self, ids: &[&str]) {
        let mut left: BTreeSet<&str> = ids.iter().copied().collect();
        while !left.is_empty() {
            let parcel = self.arrives().await;
            assert!(left.remove(parcel.id.as_str()), "{} was sent instead of {left:?}", parcel.id);
            parcel.says(Ok(Accepted::default()));
        }
    }

    /// The lane takes another one, that waits for nothing, and leaves this one alone: it would have taken both.
    async fn is_passed_over(&mut self, id: &str, host: &Host) {
        let other = self.submit_with(host.now(), ADA, json!({"critical": true})).await;
        self.accepts(&[&other]).await;
        assert_eq!(self.view(id).await.state, "pending");
    }

    async fn view(&self, id: &str) -> NotificationView {
        self.database.notification(id).await.expect("reads").expect("is there")
    }

    /// Waits until it goes on waiting as is wanted.
    async fn until(&self, id: &str, wanted: impl Fn(&NotificationView) -> bool) -> NotificationView {
        let mut work = self.database.work();
        let found = async {
            loop {
                let shown = self.view(id).await;
                if wanted(&shown) {
                    return shown;
                }
                work.changed().await.expect("the ledger is there");
            }
        };
        timeout(PATIENCE, found).await.expect("it comes to that")
    }
}

/// An instance with one lane, whose parts are driven by hand or by [`Host::start`].
struct Host {
    clock: Arc<ManualClock>,
    context: Arc<DispatchContext>,
    lane: Arc<LaneSettings>,
    owner: String,
    held: Arc<Held>,
    under_way: Arc<UnderWay>,
    watch: LeaseWatch,
}

impl Host {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The lane at work.
    fn start(&self) -> Running {
        let (context, lane) = (Arc::clone(&self.context), Arc::clone(&self.lane));
        let (held, under_way) = (Arc::clone(&self.held), Arc::clone(&self.under_way));
        let stop = CancellationToken::new();
        let lane = Lane::new(context, lane, self.owner.clone(), held, under_way);
        Running { task: tokio::spawn(lane.run(stop.clone())), stop }
    }

    /// One look of the lease keeper.
    async fn look(&mut self) {
        let keeper = LeaseKeeper {
            context: Arc::clone(&self.context),
            channel: Channel::Email,
            owner: self.owner.clone(),
            held: Arc::clone(&self.held),
            lanes: vec![Arc::clone(&self.lane)],
        };
        keeper.tidy().await;
        keeper.once(&mut self.watch).await.expect("the ledger answers");
    }

    /// What the lane would send now.
    async fn takes(&self) -> Vec<String> {
        self.take().await.begun.iter().map(|(ready, _)| ready.message.id.clone()).collect()
    }

    /// What is due is claimed, prepared and begun, and does not leave.
    async fn take(&self) -> Taken {
        let claiming = Claiming {
            context: Arc::clone(&self.context),
            settings: Arc::clone(&self.lane),
            owner: self.owner.clone(),
            held: Arc::clone(&self.held),
            under_way: Arc::clone(&self.under_way),
            pacing: Arc::new(Pacing::new(self.clock.clone(), None, None, 10)),
        };
        let (taken, result) = claiming.take(10).await;
        result.expect("the ledger answers");
        taken
    }
}

/// A lane at work.
struct Running {
    task: JoinHandle<Result<(), String>>,
    stop: CancellationToken,
}

impl Running {
    /// Once it has settled what is answered.
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("no send was lost");
    }
}
