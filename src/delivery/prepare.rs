//! From claimed notifications to messages: who may get one now, where it goes, and its words. The rest is settled
//! without an attempt.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::attempt::{await_contact, not_sent, postpone, put_back, refuse, superseded};
use super::contact::{Contact, resolve};
use super::context::DispatchContext;
use super::held::Held;
use super::rules::Gate;
use super::templates::{RenderError, RenderRequest, Rendered};
use super::under_way::UnderWay;
use crate::domain::channel::Channel;
use crate::domain::dead_letter::Failure;
use crate::domain::error::{DecodeError, ErrorClass, panic_message};
use crate::domain::notification::template_data;
use crate::domain::recipient::Device;
use crate::ports::ledger::{Claimed, LedgerError, Replaceable, Selection, Settlement, State};
use crate::ports::provider::Message;

/// What is claimed so long after it came is looked at again, whether a newer one has replaced it. What came and is sent
/// within this time is sent in full, in whatever order.
const LONG: SignedDuration = SignedDuration::from_mins(5);
/// Followers of one digest; those that are left make another one.
const MOST_TOGETHER: usize = 1000;
/// With so many followers in hand the other leaders of the batch wait for the next one.
const MOST_FOLLOWERS: usize = 10_000;

/// A notification that is ready to be sent.
pub struct Ready {
    /// What is sent.
    pub message: Message,
    /// The version of its template.
    pub version: String,
    /// The notification.
    pub claimed: Claimed,
    /// Those that travel with it.
    pub followers: Vec<Claimed>,
}

/// What became of a batch.
#[derive(Default)]
pub struct Prepared {
    /// To be sent.
    pub ready: Vec<Ready>,
    /// Not to be sent now.
    pub settled: Vec<Settlement>,
}

/// Prepares notifications of one channel.
pub struct Preparation<'a> {
    /// What all lanes share.
    pub context: &'a DispatchContext,
    /// The channel.
    pub channel: Channel,
    /// What the channel's lanes have in hand.
    pub held: &'a Held,
    /// Whom they are sending to.
    pub under_way: &'a UnderWay,
    /// Whose claims they are.
    pub owner: &'a str,
    /// Now.
    pub now: Timestamp,
}

impl Preparation<'_> {
    /// Decides about all of them.
    ///
    /// # Errors
    /// When the ledger cannot be asked; then nothing is decided.
    pub async fn run(&self, claimed: Vec<Claimed>) -> Result<Prepared, LedgerError> {
        let mut settled = Vec::new();
        let claimed = self.without_superseded(claimed, &mut settled).await?;
        let mut addressed = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            match self.address(&claimed) {
                Ok(address) => addressed.push((claimed, address)),
                Err(settlement) => settled.push(*settlement),
            }
        }
        let addressed = self.without_suppressed(addressed, &mut settled).await?;
        let addressed = self.without_throttled(addressed, &mut settled).await?;
        let Followers { mut followers, waiting } = self.followers(&addressed, &mut settled).await?;
        let mut ready = Vec::with_capacity(addressed.len());
        for (claimed, address) in addressed {
            if waiting.contains(&claimed.id) {
                settled.push(put_back(&claimed, self.owner, self.now));
                continue;
            }
            let followers = followers.remove(&claimed.id).unwrap_or_default();
            ready.extend(self.ready(claimed, &address, followers, &mut settled));
        }
        Ok(Prepared { ready, settled })
    }

    /// A newer one replaces what waits when it comes. Those that came together wait together: for a contact, or for
    /// another time.
    async fn without_superseded(
        &self,
        claimed: Vec<Claimed>,
        settled: &mut Vec<Settlement>,
    ) -> Result<Vec<Claimed>, LedgerError> {
        let waited = |c: &&Claimed| c.awaiting_since.is_some() || self.now.duration_since(c.received_at) > LONG;
        // What is tried again by hand is wanted.
        let candidates = claimed.iter().filter(|c| c.about.is_some() && c.reopened == 0).filter(waited);
        let old: Vec<Replaceable<'_>> = candidates
            .map(|claimed| Replaceable { claimed, by: self.context.templates.superseders(&claimed.template) })
            .filter(|old| !old.by.is_empty())
            .collect();
        if old.is_empty() {
            return Ok(claimed);
        }
        let mut newer = self.context.ledger.superseded(&old).await?;
        let mut in_hand: HashMap<Option<&str>, Vec<&Claimed>> = HashMap::new();
        for other in &claimed {
            in_hand.entry(other.about.as_deref()).or_default().push(other);
        }
        for old in &old {
            let mut others = in_hand.get(&old.claimed.about.as_deref()).into_iter().flatten();
            if let Some(other) = others.find(|other| old.is_replaced_by(other)) {
                newer.insert(old.claimed.id.clone(), other.id.clone());
            }
        }
        let mut rest = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            match newer.get(&claimed.id) {
                None => rest.push(claimed),
                Some(by) => settled.push(superseded(&claimed, self.owner, by, self.now)),
            }
        }
        Ok(rest)
    }

    /// The message; a follower whose variables spoil it is refused alone.
    fn ready(
        &self,
        claimed: Claimed,
        address: &Address,
        mut followers: Vec<Claimed>,
        settled: &mut Vec<Settlement>,
    ) -> Option<Ready> {
        let mut made = self.message(&claimed, address, &followers);
        if made.is_err() && !followers.is_empty() && self.message(&claimed, address, &[]).is_ok() {
            followers.retain(|follower| {
                let Err(failure) = self.message(&claimed, address, std::slice::from_ref(follower)) else { return true };
                settled.push(refuse(follower, self.owner, failure, self.now));
                false
            });
            made = self.message(&claimed, address, &followers);
            // Each for itself is sound: together they are too much. Those that are left make the next digest.
            while made.is_err() && !followers.is_empty() {
                let left = followers.split_off(followers.len() / 2);
                settled.extend(left.iter().map(|f| put_back(f, self.owner, self.now)));
                made = self.message(&claimed, address, &followers);
            }
        }
        match made {
            Ok((message, version)) => Some(Ready { message, version, claimed, followers }),
            Err(failure) => {
                settled.push(refuse(&claimed, self.owner, failure, self.now));
                // Without their leader the next one leads.
                settled.extend(followers.iter().map(|f| put_back(f, self.owner, self.now)));
                None
            }
        }
    }

    /// The rules, and the address.
    fn address(&self, claimed: &Claimed) -> Result<Address, Box<Settlement>> {
        let (owner, now) = (self.owner, self.now);
        let gate = self.context.house.gate(claimed, now);
        if let Some(end) = self.end(claimed, &gate) {
            return Err(Box::new(end));
        }
        if let Gate::Later { at, reason } = gate {
            return Err(Box::new(postpone(claimed, owner, at, reason, now)));
        }
        let data =
            template_data(&claimed.request_json).map_err(|e| self.permanent(claimed, e.code(), e.to_string()))?;
        match resolve(claimed.channel, claimed.recipient.as_deref(), claimed.contact.as_ref(), data.get()) {
            Contact::Found(to) => Ok(Address { to, devices: devices(claimed), data }),
            Contact::Invalid(reason) => Err(self.permanent(claimed, "invalid_address", reason)),
            Contact::Missing => Err(Box::new(await_contact(claimed, owner, now))),
        }
    }

    fn permanent(&self, claimed: &Claimed, code: &str, reason: String) -> Box<Settlement> {
        let failure = Failure::new(ErrorClass::Permanent, code, reason, self.now);
        Box::new(refuse(claimed, self.owner, failure, self.now))
    }

    async fn without_suppressed(
        &self,
        addressed: Vec<(Claimed, Address)>,
        settled: &mut Vec<Settlement>,
    ) -> Result<Vec<(Claimed, Address)>, LedgerError> {
        let addresses: Vec<&str> = addressed.iter().flat_map(|(_, address)| address.all()).collect();
        if addresses.is_empty() {
            return Ok(addressed);
        }
        let suppressed = self.context.ledger.suppressed(self.channel, &addresses).await?;
        let mut rest = Vec::with_capacity(addressed.len());
        for (claimed, mut address) in addressed {
            match address.leave_out(&suppressed) {
                None => rest.push((claimed, address)),
                Some(why) => {
                    let reason = format!("the address is suppressed: {why}");
                    let (owner, state, code) = (self.owner, State::Suppressed, "suppressed_address");
                    settled.push(not_sent(&claimed, owner, state, code, reason, self.now));
                }
            }
        }
        Ok(rest)
    }

    /// Counts what each recipient got lately or is about to get. Several instances that send at the same moment may
    /// exceed the limit by what the others have under way.
    async fn without_throttled(
        &self,
        addressed: Vec<(Claimed, Address)>,
        settled: &mut Vec<Settlement>,
    ) -> Result<Vec<(Claimed, Address)>, LedgerError> {
        let Some(throttle) = &self.context.throttle else { return Ok(addressed) };
        let throttled = |claimed: &Claimed| !claimed.critical && claimed.recipient.is_some();
        let mut recipients: Vec<&str> =
            addressed.iter().filter(|(c, _)| throttled(c)).filter_map(|(c, _)| c.recipient.as_deref()).collect();
        recipients.sort_unstable();
        recipients.dedup();
        let window = throttle.window;
        let since = self.now - window;
        // In this order: what another lane settles meanwhile is counted twice rather than never.
        let under_way = self.under_way.counts();
        let mut sent = self.context.ledger.sent_since(self.channel, &recipients, since).await?;
        for (recipient, count) in under_way {
            sent.entry(recipient).or_insert((0, self.now)).0 += count;
        }
        let mut rest = Vec::with_capacity(addressed.len());
        for (claimed, address) in addressed {
            let Some(recipient) = claimed.recipient.clone().filter(|_| throttled(&claimed)) else {
                rest.push((claimed, address));
                continue;
            };
            let (count, oldest) = sent.entry(recipient).or_insert((0, self.now));
            if *count < u64::from(throttle.per_recipient) {
                *count += 1;
                rest.push((claimed, address));
            } else {
                settled.push(postpone(&claimed, self.owner, *oldest + window, "throttled".to_owned(), self.now));
            }
        }
        Ok(rest)
    }

    /// What travels with those that lead digests. What a follower waits for, its leader waits for too.
    async fn followers(
        &self,
        addressed: &[(Claimed, Address)],
        settled: &mut Vec<Settlement>,
    ) -> Result<Followers, LedgerError> {
        let leads = |(claimed, _): &&(Claimed, Address)| self.context.templates.collects(&claimed.template);
        let leaders: Vec<String> = addressed.iter().filter(leads).map(|(claimed, _)| claimed.id.clone()).collect();
        let mut found = Followers::default();
        if leaders.is_empty() {
            // Most batches lead nothing, and even the shortest question waits for a connection.
            return Ok(found);
        }
        let result = self.seize_followers(&leaders, &mut found).await;
        let seized: Vec<Claimed> = std::mem::take(&mut found.followers).into_values().flatten().collect();
        if let Err(error) = result {
            // Nobody renews their leases, as their leaders'.
            self.held.remove(seized.iter().map(|follower| follower.id.as_str()));
            return Err(error);
        }
        for follower in seized {
            let gate = self.context.house.gate(&follower, self.now);
            match (self.end(&follower, &gate), &follower.digest_id) {
                (Some(settlement), _) => settled.push(settlement),
                (None, Some(leader)) => found.followers.entry(leader.clone()).or_default().push(follower),
                (None, None) => settled.push(put_back(&follower, self.owner, self.now)),
            }
        }
        for followers in found.followers.values_mut() {
            followers.sort_unstable_by_key(|follower| follower.seq);
        }
        Ok(found)
    }

    /// One question for all leaders, and where its answer is full, one for each: no digest is cut because of others.
    async fn seize_followers(&self, leaders: &[String], found: &mut Followers) -> Result<(), LedgerError> {
        if self.seize(leaders.to_vec(), MOST_TOGETHER, found).await? < MOST_TOGETHER {
            return Ok(());
        }
        let mut in_hand = MOST_TOGETHER;
        for leader in leaders {
            let have = found.followers.get(leader).map_or(0, Vec::len);
            if in_hand >= MOST_FOLLOWERS && have == 0 {
                found.waiting.insert(leader.clone());
            } else if have < MOST_TOGETHER {
                in_hand += self.seize(vec![leader.clone()], MOST_TOGETHER - have, found).await?;
            }
        }
        Ok(())
    }

    async fn seize(&self, leaders: Vec<String>, limit: usize, found: &mut Followers) -> Result<usize, LedgerError> {
        let until = self.context.clock.now() + self.context.lease;
        let seized = self.context.ledger.seize(&Selection::DigestOf(leaders), self.owner, until, limit).await?;
        self.held.add(seized.iter().map(|f| f.id.as_str()));
        let count = seized.len();
        for follower in seized {
            let leader = follower.digest_id.clone().unwrap_or_default();
            found.followers.entry(leader).or_default().push(follower);
        }
        Ok(count)
    }

    /// The end of a notification that nobody wants any more.
    fn end(&self, claimed: &Claimed, gate: &Gate) -> Option<Settlement> {
        let (owner, now) = (self.owner, self.now);
        match gate {
            Gate::Open | Gate::Later { .. } => None,
            Gate::Expired => Some(not_sent(claimed, owner, State::Expired, "expired", "its time is over", now)),
            Gate::Refused => {
                let reason = format!("the recipient does not want {} over {}", claimed.category, claimed.channel);
                Some(not_sent(claimed, owner, State::Suppressed, "opted_out", reason, now))
            }
        }
    }

    /// Pure work, so a panic leaves nothing half-done: it costs this notification, not the lane.
    fn message(
        &self,
        claimed: &Claimed,
        address: &Address,
        followers: &[Claimed],
    ) -> Result<(Message, String), Failure> {
        let compose = AssertUnwindSafe(|| self.compose(claimed, address, followers));
        catch_unwind(compose).unwrap_or_else(|panic| {
            let reason = format!("rendering panicked: {}", panic_message(&*panic));
            Err(Failure::new(ErrorClass::Bug, "panic", reason, self.now))
        })
    }

    fn compose(
        &self,
        claimed: &Claimed,
        address: &Address,
        followers: &[Claimed],
    ) -> Result<(Message, String), Failure> {
        let unsubscribe_url = self.unsubscribe_url(claimed);
        let words = self
            .words(claimed, &address.data, followers, unsubscribe_url.as_deref())
            .map_err(|e| Failure::new(ErrorClass::Permanent, e.code, e.reason, self.now))?;
        let message = Message {
            id: claimed.id.clone(),
            channel: claimed.channel,
            recipient: claimed.recipient.clone(),
            to: address.to.clone(),
            subject: words.subject,
            body: words.text,
            html: words.html,
            template: claimed.template.clone(),
            category: claimed.category.clone(),
            data: address.data.clone(),
            devices: address.devices.clone(),
            unsubscribe_url,
            attempt: claimed.attempts + 1,
        };
        Ok((message, words.version))
    }

    /// In the recipient's language and time; a digest's words see the variables of all, in the order in which they came.
    fn words(
        &self,
        claimed: &Claimed,
        data: &RawValue,
        followers: &[Claimed],
        unsubscribe_url: Option<&str>,
    ) -> Result<Rendered, RenderError> {
        let contact = claimed.contact.as_ref();
        let zone = contact.and_then(|contact| contact.time_zone.as_deref());
        let request = RenderRequest {
            template: &claimed.template,
            channel: claimed.channel,
            locale: contact.and_then(|contact| contact.locale.as_deref()),
            time_zone: zone.or_else(|| self.context.house.default_time_zone.of_times()),
            data,
            unsubscribe_url,
        };
        if !self.context.templates.collects(&claimed.template) {
            return self.context.templates.render(&request);
        }
        let invalid = |error: DecodeError| RenderError { code: error.code(), reason: error.to_string() };
        let mut items = vec![data.to_owned()];
        for follower in followers {
            items.push(template_data(&follower.request_json).map_err(invalid)?);
        }
        let newest = items.last().cloned().unwrap_or_else(|| data.to_owned());
        self.context.templates.render_digest(&RenderRequest { data: &newest, ..request }, &items)
    }

    /// Where the recipient refuses more of the kind.
    fn unsubscribe_url(&self, claimed: &Claimed) -> Option<String> {
        let (links, exempt) = (self.context.unsubscribe.as_ref()?, &self.context.house.exempt_categories);
        links.offered(claimed.recipient.as_deref(), claimed.channel, &claimed.category, exempt)
    }
}

/// What travels with those that lead digests.
#[derive(Default)]
struct Followers {
    /// By their leaders' ids.
    followers: HashMap<String, Vec<Claimed>>,
    /// Leaders that wait, for there were too many followers before theirs.
    waiting: HashSet<String>,
}

/// Where a notification goes, and what its template sees.
struct Address {
    to: Option<String>,
    /// Push only; `to` is the first one's token.
    devices: Vec<Device>,
    data: Box<RawValue>,
}

impl Address {
    /// Each place that it goes to.
    fn all(&self) -> impl Iterator<Item = &str> {
        let to = self.to.as_deref().filter(|_| self.devices.is_empty());
        to.into_iter().chain(self.devices.iter().map(|device| device.token.as_str()))
    }

    /// Leaves out what is suppressed. Where nothing is left, the reason.
    fn leave_out(&mut self, suppressed: &HashMap<String, String>) -> Option<String> {
        let why = self.all().find_map(|address| suppressed.get(address))?.clone();
        self.devices.retain(|device| !suppressed.contains_key(&device.token));
        let Some(device) = self.devices.first() else { return Some(why) };
        self.to = Some(device.token.clone());
        None
    }
}

fn devices(claimed: &Claimed) -> Vec<Device> {
    match (claimed.channel, &claimed.contact) {
        (Channel::Push, Some(contact)) => contact.devices.clone(),
        _ => Vec::new(),
    }
}
