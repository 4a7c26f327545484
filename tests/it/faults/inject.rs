//! One fault: it happens, lasts, is undone, and leaves a proof.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Kind, Step};
use super::probe::Probes;
use super::proxy::Toxic;
use super::stage::{INSTANCES, Stage};
use crate::support::wait::{self, secs};

/// A Java process that was asked to stop says so by its exit code: 128 and the signal's number.
const ASKED_TO_STOP: i32 = 128 + 15;
/// What is on its way when a network fault begins still arrives.
const ON_ITS_WAY: Duration = secs(1);

/// What became of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// When it was over.
    pub healed: Instant,
    /// Whether it was seen to happen, and to matter.
    pub took_effect: bool,
}

impl Fault {
    fn over(took_effect: bool) -> Self {
        Self { healed: Instant::now(), took_effect }
    }
}

impl Stage {
    /// Lets the fault happen and undoes it.
    #[track_caller]
    pub fn inject(&mut self, step: &Step) -> Fault {
        match step.kind {
            Kind::KillInstance => self.kill_instance(step),
            Kind::RollInstances => self.roll_instances(),
            Kind::FreezeInstance => self.freeze_instance(step),
            Kind::ChangeMembership => self.change_membership(step),
            Kind::KillBroker => self.kill_broker(step),
            Kind::StopBroker => self.stop_broker(step),
            Kind::MoveLeaders => self.move_leaders(step),
            Kind::Latency => self.delay_answers(step),
            Kind::Narrow => self.spoil_network(step, Toxic::Bandwidth(1)),
            Kind::Cut if step.victim.is_multiple_of(2) => self.spoil_network(step, Toxic::LostRequests),
            Kind::Cut => self.spoil_network(step, Toxic::LostAnswers),
            Kind::Reset => self.reset_connections(step),
            Kind::FlushRedis => self.flush_redis(),
            Kind::RestartRedis => self.restart_redis(step),
        }
    }

    fn kill_instance(&mut self, step: &Step) -> Fault {
        let slot = self.fleet.victim(step.victim);
        let status = self.fleet.kill(slot);
        let at_work = self.kafka.is_routing();
        thread::sleep(step.hold);
        self.fleet.start(slot);
        Fault::over(was_killed(status) && at_work)
    }

    fn roll_instances(&mut self) -> Fault {
        let before = self.flow();
        self.fleet.roll(|| {});
        Fault::over(self.flow().has_gone_on_since(before))
    }

    fn freeze_instance(&mut self, step: &Step) -> Fault {
        let slot = self.fleet.victim(step.victim);
        self.fleet.signal(slot, "STOP");
        thread::sleep(step.hold);
        let lost_its_partitions = self.fleet.others_take_over(slot);
        self.fleet.signal(slot, "CONT");
        Fault::over(lost_its_partitions)
    }

    /// From one instance to three, back to one, and then to what is usual.
    fn change_membership(&mut self, step: &Step) -> Fault {
        let mut codes = Vec::new();
        for size in [1, 3, 1, INSTANCES] {
            codes.extend(self.fleet.resize(size));
            self.fleet.wait_until_shared();
            thread::sleep(step.hold);
        }
        assert!(codes.iter().all(|code| *code == Some(0)), "every instance ends with exit code 0: {codes:?}");
        Fault::over(true)
    }

    fn kill_broker(&mut self, step: &Step) -> Fault {
        let status = self.cluster.victim(step.victim).kill();
        self.without_broker(step, was_killed(status))
    }

    fn stop_broker(&mut self, step: &Step) -> Fault {
        let status = self.cluster.victim(step.victim).stop();
        self.without_broker(step, status.code() == Some(ASKED_TO_STOP))
    }

    /// With three of them the others take over, else it was all there was.
    fn without_broker(&mut self, step: &Step, ended: bool) -> Fault {
        let id = self.cluster.victim(step.victim).id;
        thread::sleep(step.hold);
        let alone = self.cluster.brokers().len() == 1;
        let missed = alone || self.cluster.loses_leaderships(id, secs(30));
        self.cluster.victim(step.victim).start();
        self.cluster.wait_until_back(step.victim);
        Fault::over(ended && missed)
    }

    fn move_leaders(&mut self, step: &Step) -> Fault {
        let broker = self.cluster.victim(step.victim);
        let id = broker.id;
        // After an earlier fault it gets its leaderships back only with the next election.
        let before = wait::until("the broker leads something", secs(60), || {
            let leaders = self.cluster.leaders();
            leaders.into_iter().find(|leaders| leaders.values().any(|leader| *leader as usize == id))
        });
        self.cluster.victim(step.victim).stop();
        let moved = self.cluster.loses_leaderships(id, secs(30));
        self.cluster.victim(step.victim).start();
        self.cluster.wait_until_back(step.victim);
        let moved_back = self.cluster.has_leaders(&before, secs(60));
        Fault::over(moved && moved_back)
    }

    fn delay_answers(&mut self, step: &Step) -> Fault {
        self.proxies.spoil(Toxic::Latency(step.latency_ms));
        let latency = Duration::from_millis(step.latency_ms);
        let late = self.proxies.round_trip(step.victim).is_ok_and(|took| took >= latency);
        let probes = Probes::send(&self.feeder.feed);
        thread::sleep(step.hold);
        let answered = probes.wait_for_last(&self.watch, secs(60));
        self.proxies.heal();
        Fault::over(late && answered - probes.sent >= latency)
    }

    fn spoil_network(&mut self, step: &Step, toxic: Toxic) -> Fault {
        self.proxies.spoil(toxic);
        thread::sleep(ON_ITS_WAY);
        let held_back = self.is_held_back_for(step.hold);
        self.proxies.heal();
        Fault::over(held_back)
    }

    fn reset_connections(&mut self, step: &Step) -> Fault {
        self.proxies.spoil(Toxic::Reset);
        let reset = self.proxies.round_trip(step.victim).is_err();
        thread::sleep(ON_ITS_WAY);
        let held_back = self.is_held_back_for(step.hold);
        self.proxies.heal();
        Fault::over(reset && held_back)
    }

    fn flush_redis(&mut self) -> Fault {
        let redis = self.redis.as_ref().expect("it takes part");
        let before = redis.size();
        redis.flush();
        Fault::over(before > 0)
    }

    fn restart_redis(&mut self, step: &Step) -> Fault {
        let redis = self.redis.as_mut().expect("it takes part");
        let had_marks = redis.size() > 0;
        let status = redis.kill();
        thread::sleep(step.hold);
        redis.restart();
        Fault::over(was_killed(status) && had_marks)
    }
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}
