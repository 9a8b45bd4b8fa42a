//! Who runs next, of the guests that compute long: shares of a busy node are as the weights of its pods, and within a pod
//! as the weights of its containers, however many instances each has.
//!
//! As many run at once as there are threads for them; the others wait in line. Each pod has a clock that goes on by the
//! CPU time that it used over its weight, and whoever is furthest behind gets the next turn. One that comes back from
//! waiting for something else starts where the others are: idling saves up nothing. No core idles while somebody waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

use parking_lot::Mutex;

/// Weights are thousandths of a core requested; at this one the clock goes as the CPU's.
const WEIGHT_UNIT: u64 = 1000;
/// Kubernetes' smallest weight.
const WEIGHT_MIN: u64 = 2;

/// The clock of a pod, or of a container within it.
#[derive(Debug)]
pub(crate) struct Share {
    pod: Option<Arc<Share>>,
    weight: AtomicU64,
    clock: AtomicU64,
    /// Where those within it are: what newcomers start from.
    floor: AtomicU64,
}

impl Share {
    pub(crate) fn new(weight_millicores: u32, pod: Option<Arc<Share>>) -> Self {
        let weight = AtomicU64::new(u64::from(weight_millicores).max(WEIGHT_MIN));
        Self { pod, weight, clock: AtomicU64::new(0), floor: AtomicU64::new(0) }
    }

    /// Changes the weight from now on.
    pub(crate) fn set_weight(&self, millicores: u32) {
        self.weight.store(u64::from(millicores).max(WEIGHT_MIN), Relaxed);
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Relaxed)
    }

    fn used(&self, ns: u64) {
        self.clock.fetch_add(ns.saturating_mul(WEIGHT_UNIT) / self.weight(), Relaxed);
        if let Some(pod) = &self.pod {
            pod.used(ns);
        }
    }

    /// How far the pod is, and how far the container is within it.
    fn place(&self) -> (u64, u64) {
        match &self.pod {
            Some(pod) => (pod.clock.load(Relaxed), self.clock.load(Relaxed)),
            None => (self.clock.load(Relaxed), 0),
        }
    }

    fn catch_up(&self, floor: u64) {
        match &self.pod {
            Some(pod) => {
                pod.clock.fetch_max(floor, Relaxed);
                self.clock.fetch_max(pod.floor.load(Relaxed), Relaxed);
            }
            None => _ = self.clock.fetch_max(floor, Relaxed),
        }
    }
}

/// The line.
#[derive(Debug)]
pub(crate) struct Turns {
    running_max: usize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: Vec<Waiting>,
    floor: u64,
}

#[derive(Debug)]
struct Waiting {
    share: Arc<Share>,
    granted: Arc<AtomicBool>,
    waker: Waker,
}

/// A place in the line, or a turn. Dropping it gives either up.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    share: Arc<Share>,
    granted: Arc<AtomicBool>,
}

impl Turns {
    /// `running_max`: how many run at once.
    pub(crate) fn new(running_max: usize) -> Arc<Self> {
        Arc::new(Self { running_max: running_max.max(1), line: Mutex::default() })
    }

    /// Takes a turn if there is one, else a place in the line; `waker` is woken when it is this one's turn.
    pub(crate) fn begin(self: &Arc<Self>, share: &Arc<Share>, waker: &Waker) -> Turn {
        let mut line = self.line.lock();
        share.catch_up(line.floor);
        let at_once = line.running < self.running_max;
        let granted = Arc::new(AtomicBool::new(at_once));
        let turn = Turn { turns: self.clone(), share: share.clone(), granted };
        match at_once {
            true => line.running += 1,
            false => line.waiting.push(turn.waiting(waker)),
        }
        drop(line);
        turn
    }
}

impl Turn {
    /// Whether it is this one's turn.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut line = self.turns.line.lock();
        if self.granted.load(Relaxed) {
            return Poll::Ready(());
        }
        if let Some(own) = line.waiting.iter_mut().find(|waiting| Arc::ptr_eq(&waiting.granted, &self.granted)) {
            own.waker.clone_from(waker);
        }
        Poll::Pending
    }

    /// Books CPU time of a turn.
    pub(crate) fn used(&self, ns: u64) {
        self.share.used(ns);
    }

    /// Ends a turn and takes a place in the line at once: it may be the one that is furthest behind still.
    pub(crate) fn again(&self, waker: &Waker) {
        let mut line = self.turns.line.lock();
        if !self.granted.swap(false, Relaxed) {
            return;
        }
        line.running -= 1;
        line.waiting.push(self.waiting(waker));
        line.next();
    }

    fn waiting(&self, waker: &Waker) -> Waiting {
        Waiting { share: self.share.clone(), granted: self.granted.clone(), waker: waker.clone() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.turns.line.lock();
        if !self.granted.load(Relaxed) {
            line.waiting.retain(|waiting| !Arc::ptr_eq(&waiting.granted, &self.granted));
            return;
        }
        line.running -= 1;
        line.next();
    }
}

impl Line {
    /// Gives a turn to whoever is furthest behind; among equals to the one that waits longest.
    fn next(&mut self) {
        let all = self.waiting.iter().enumerate();
        let Some((index, _)) = all.min_by_key(|(index, waiting)| (waiting.share.place(), *index)) else { return };
        let next = self.waiting.remove(index);
        let (pod, own) = next.share.place();
        self.floor = self.floor.max(pod);
        if let Some(pod) = &next.share.pod {
            pod.floor.fetch_max(own, Relaxed);
        }
        self.running += 1;
        next.granted.store(true, Relaxed);
        next.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Lets spinners run for so many turns of a millisecond on so many cores; answers how many each got.
    fn shares(spinners: &[Arc<Share>], cores: usize, turns: usize) -> Vec<usize> {
        let line = Turns::new(cores);
        let all: Vec<_> = spinners.iter().map(|share| line.begin(share, Waker::noop())).collect();
        let mut got = vec![0; spinners.len()];
        for _ in 0..turns {
            let granted: Vec<usize> = (0..all.len()).filter(|i| all[*i].poll(Waker::noop()).is_ready()).collect();
            assert_eq!(granted.len(), cores.min(spinners.len()), "no core idles, none runs two");
            for i in &granted {
                got[*i] += 1;
                all[*i].used(MS);
            }
            for i in &granted {
                all[*i].again(Waker::noop());
            }
        }
        got
    }

    fn pod(weight: u32) -> Arc<Share> {
        Arc::new(Share::new(weight, None))
    }

    #[test]
    fn turns_go_by_weight() {
        let got = shares(&[pod(100), pod(1000), pod(400)], 1, 1500);
        assert!(got.iter().zip([100, 1000, 400]).all(|(got, wanted)| got.abs_diff(wanted) <= 3), "{got:?}");
    }

    #[test]
    fn many_instances_get_no_more_than_one() {
        let (many, one) = (pod(100), pod(100));
        let got = shares(&[many.clone(), many.clone(), many.clone(), many, one], 1, 1000);
        assert!(got[4].abs_diff(500) <= 3, "{got:?}");
        // One can use but one core, and the others get what it leaves.
        let (many, one) = (pod(100), pod(1000));
        assert!(shares(&[many.clone(), many, one], 2, 100)[2] >= 98);
    }

    #[test]
    fn within_a_pod_by_the_containers_weights() {
        let [first, second] = [pod(100), pod(100)];
        let of = |pod: &Arc<Share>, weight| Arc::new(Share::new(weight, Some(pod.clone())));
        let got = shares(&[of(&first, 300), of(&first, 100), of(&second, 100)], 1, 800);
        assert!(got.iter().zip([300, 100, 400]).all(|(got, wanted)| got.abs_diff(wanted) <= 5), "{got:?}");
    }

    #[test]
    fn idling_saves_up_nothing_and_places_are_given_up() {
        let (busy, late) = (pod(100), pod(100));
        shares(std::slice::from_ref(&busy), 1, 1);
        let line = Turns::new(1);
        let turn = line.begin(&busy, Waker::noop());
        for _ in 0..1000 {
            turn.used(MS);
            turn.again(Waker::noop());
            assert!(turn.poll(Waker::noop()).is_ready());
        }
        let waits = line.begin(&late, Waker::noop());
        drop(line.begin(&late, Waker::noop()));
        turn.used(MS);
        drop(turn);
        assert!(waits.poll(Waker::noop()).is_ready());
        assert!(late.place().0 + 2 * MS * 10 >= busy.place().0, "starts where the others are");
        drop(waits);
        assert_eq!(line.line.lock().running, 0);
    }
}
