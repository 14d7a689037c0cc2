//! Who may keep a connection.
//!
//! ```text
//! accepted ─▶ silent ─▶ asking ─┬─▶ known     shows a valid key or session: keeps its connection
//!               ▲               │
//!               └───────────────┘            was told nothing but what strangers are told
//! ```
//!
//! Of silent connections, at whose other end anybody may be, there are so many from one address and so many in all: for one more the
//! oldest of them is ended. So nobody is turned away for what others at his address do, as at that of a proxy or of a node: he asks
//! within moments, and is silent no more. Connections of whoever has shown a key are bounded by the descriptors alone, since all
//! sidecars of a cluster may come from one address; but for a user's own key, which one program has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Silent connections in all.
const SILENT_MAX: usize = 4_096;
/// Silent connections from one address.
const SILENT_OF_ADDRESS_MAX: usize = 1_024;
/// Connections that the key of one user, or one session, keeps while it asks nothing.
const OF_USER_MAX: usize = 512;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A unix socket.
    Here,
    Address(IpAddr),
}

impl Origin {
    /// Whoever has an address of IPv6 has a network of 2^64.
    pub(super) fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(six) => {
                let [a, b, c, d, ..] = six.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            four @ IpAddr::V4(_) => four,
        })
    }
}

/// All connections of a service.
#[derive(Debug)]
pub(super) struct Admission {
    count_max: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    count: usize,
    next: u64,
    /// The oldest first.
    silent: BTreeMap<u64, (Origin, Arc<Notify>)>,
    by_origin: HashMap<Origin, BTreeSet<u64>>,
    of_users: HashMap<String, usize>,
}

impl All {
    fn add_silent(&mut self, origin: Origin, leave: &Arc<Notify>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.silent.insert(number, (origin, Arc::clone(leave)));
        self.by_origin.entry(origin).or_default().insert(number);
        number
    }

    fn remove_silent(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (origin, leave) = self.silent.remove(&number)?;
        if let Some(numbers) = self.by_origin.get_mut(&origin) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
        Some(leave)
    }

    fn silent_of(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).map_or(0, BTreeSet::len)
    }

    fn end(&mut self, number: Option<u64>) -> bool {
        let leave = number.and_then(|number| self.remove_silent(number));
        leave.inspect(|leave| leave.notify_one()).is_some()
    }
}

impl Admission {
    /// For so many connections at the same time.
    pub(super) fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self { count_max, all: Mutex::default() })
    }

    /// A place for one more connection. `None` where all of them are of people who are known.
    pub(super) fn admit(self: &Arc<Self>, origin: Origin) -> Option<Arc<Place>> {
        let mut all = self.all();
        if all.silent_of(origin) >= SILENT_OF_ADDRESS_MAX {
            let oldest = all.by_origin.get(&origin).and_then(|numbers| numbers.first().copied());
            all.end(oldest);
        }
        let oldest = all.silent.keys().next().copied();
        if (all.silent.len() >= SILENT_MAX || all.count >= self.count_max)
            && !all.end(oldest)
            && all.count >= self.count_max
        {
            return None;
        }
        all.count += 1;
        let leave = Arc::default();
        let number = all.add_silent(origin, &leave);
        let state = Mutex::new(State { silent: Some(number), asking: 0, user: None });
        Some(Arc::new(Place { admission: Arc::clone(self), origin, leave, is_known: AtomicBool::new(false), state }))
    }

    /// Whether so many are silent that those who have come should be heard before more are let in.
    pub(super) fn is_crowded(&self, origin: Origin) -> bool {
        let all = self.all();
        all.silent_of(origin) > SILENT_OF_ADDRESS_MAX / 2 || all.silent.len() > SILENT_MAX / 2
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, which ends with it.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    origin: Origin,
    /// Comes when somebody else is to have the place.
    leave: Arc<Notify>,
    is_known: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Its number while it is silent.
    silent: Option<u64>,
    /// Requests that are being answered: with HTTP/2 several at the same time.
    asking: usize,
    /// The user whose place it is counted as.
    user: Option<String>,
}

impl Place {
    /// A request was read, and is not silent until what is given back is dropped.
    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        let number = {
            let mut state = self.state();
            state.asking += 1;
            state.silent.take()
        };
        if let Some(number) = number {
            self.admission.all().remove_silent(number);
        }
        Asking(Arc::clone(self))
    }

    /// Who asks has shown a valid key; `user` names the key, where it is one user's.
    pub(super) fn show(&self, user: Option<&str>) {
        if self.is_known() {
            return;
        }
        if let Some(user) = user {
            let mut all = self.admission.all();
            let count = all.of_users.entry(user.to_owned()).or_default();
            if *count >= OF_USER_MAX {
                return;
            }
            *count += 1;
            self.state().user = Some(user.to_owned());
        }
        self.is_known.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Comes when the connection has to end at once.
    pub(super) async fn taken(&self) {
        self.leave.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (silent, user) = {
            let mut state = self.state();
            (state.silent.take(), state.user.take())
        };
        let mut all = self.admission.all();
        all.count -= 1;
        if let Some(number) = silent {
            all.remove_silent(number);
        }
        if let Some(user) = user {
            match all.of_users.get_mut(&user) {
                Some(count) if *count > 1 => *count -= 1,
                _ => _ = all.of_users.remove(&user),
            }
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Asking(Arc<Place>);

impl Drop for Asking {
    fn drop(&mut self) {
        let place = &self.0;
        let mut all = place.admission.all();
        let mut state = place.state();
        state.asking -= 1;
        if state.asking == 0 && !place.is_known() {
            state.silent = Some(all.add_silent(place.origin, &place.leave));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn from(last: u8) -> Origin {
        Origin::of(IpAddr::from([10, 0, 0, last]))
    }

    fn shows(place: &Arc<Place>, user: Option<&str>) {
        let _asking = place.ask();
        place.show(user);
    }

    #[test]
    fn strangers_of_one_address_take_each_others_places_and_nobody_elses() {
        let admission = Admission::new(10_000);
        let other = admission.admit(from(2)).unwrap();
        let strangers: Vec<_> = (0..SILENT_OF_ADDRESS_MAX).map(|_| admission.admit(from(1)).unwrap()).collect();
        let asking = strangers[0].ask();
        let known = admission.admit(from(1)).unwrap();
        shows(&known, None);
        assert!(strangers.iter().all(|place| place.taken().now_or_never().is_none()));
        let _more: Vec<_> = (0..2).map(|_| admission.admit(from(1)).unwrap()).collect();
        let taken: Vec<_> = strangers.iter().map(|place| place.taken().now_or_never().is_some()).collect();
        assert!(!taken[0] && taken[1] && !taken[2], "the oldest that is silent");
        drop(asking);
        assert!(other.taken().now_or_never().is_none());
        assert!(admission.is_crowded(from(1)) && !admission.is_crowded(from(2)));
    }

    #[test]
    fn where_all_places_are_taken_strangers_leave_first_and_whoever_is_known_stays() {
        let admission = Admission::new(3);
        let mut places: Vec<_> = (0..3).map(|at| admission.admit(from(at)).unwrap()).collect();
        shows(&places[0], None);
        let next = admission.admit(from(9)).unwrap();
        let taken: Vec<_> = places.iter().map(|place| place.taken().now_or_never().is_some()).collect();
        assert_eq!(taken, [false, true, false]);
        // It has not gone yet.
        places.remove(1);
        for place in [&places[1], &next] {
            shows(place, None);
        }
        assert!(admission.admit(from(3)).is_none());
        places.pop();
        assert!(admission.admit(from(3)).is_some());
    }

    #[test]
    fn the_key_of_one_user_keeps_no_more_than_its_own() {
        let admission = Admission::new(10_000);
        let places: Vec<_> = (0..=OF_USER_MAX).map(|_| admission.admit(from(1)).unwrap()).collect();
        for place in &places {
            shows(place, Some("ann's"));
        }
        assert_eq!(places.iter().filter(|place| place.is_known()).count(), OF_USER_MAX);
        assert_eq!(admission.all().silent.len(), 1);
        drop(places);
        let all = admission.all();
        assert!(all.count == 0 && all.of_users.is_empty() && all.by_origin.is_empty() && all.silent.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
