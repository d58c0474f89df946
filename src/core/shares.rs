//! One port for several workers: which of them accepts, and which of them gets the next connection.
//!
//! One worker at a time has the listening sockets in its poll, the *acceptor*. It gives each connection to the
//! worker with the fewest open ones, before a handler exists for it. All other workers have a *seat*: a
//! counter. If the acceptor leaves, another seat becomes the acceptor, and what waits in the backlog is its
//! to accept: the sockets belong to the port and not to a worker.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::Address;
use crate::sys;
use crate::token::Token;

/// Has the listener of a worker look at its port again. Called from any thread.
type Look = Box<dyn Fn(usize, Token) + Send + Sync>;

/// Carries a connection to the worker of its place. Called from any thread.
type Carry = Box<dyn Fn(Arrived) + Send + Sync>;

/// One port of all workers.
pub(crate) struct Shares {
    state: Mutex<State>,
    /// How many connections may be open on all workers together.
    limit: usize,
    /// The acceptor has stopped, because there is no room or nobody takes connections.
    waits: AtomicBool,
    addresses: Vec<Address>,
    look: Look,
    carry: Carry,
}

#[derive(Default)]
struct State {
    seats: Vec<Arc<Seat>>,
    acceptor: Option<Arc<Seat>>,
    /// Empty: the port is closed for good.
    sockets: Vec<sys::SharedListener>,
    #[cfg(unix)]
    paths: Vec<sys::OwnPath>,
}

/// A worker's place at a port.
#[derive(Debug)]
pub(crate) struct Seat {
    worker: usize,
    /// The worker's listener.
    listener: Token,
    /// Connections that were given to it and have not ended, those on their way included.
    open: AtomicUsize,
    /// It takes connections.
    takes: AtomicBool,
}

/// A connection's place in the count of a seat. It is given back when this is dropped, unless the
/// connection has been admitted.
pub(crate) struct Place {
    shares: Arc<Shares>,
    seat: Arc<Seat>,
    admitted: bool,
}

/// A connection on its way to a worker's listener.
pub(crate) struct Arrived {
    pub(crate) socket: sys::Accepted,
    pub(crate) address: Address,
    pub(crate) place: Place,
}

/// A listener's side of its port.
pub(crate) struct Share {
    shares: Arc<Shares>,
    seat: Arc<Seat>,
    /// Connections from the acceptor that have no handler yet.
    pub(crate) arrived: VecDeque<Arrived>,
}

impl Shares {
    pub(crate) fn new(
        sockets: Vec<sys::Listener>,
        #[cfg(unix)] paths: Vec<sys::OwnPath>,
        limit: usize,
        look: Look,
        carry: Carry,
    ) -> io::Result<Arc<Self>> {
        let sockets: Vec<_> =
            sockets.into_iter().map(sys::SharedListener::new).collect::<io::Result<_>>()?;
        let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        let state = State {
            sockets,
            #[cfg(unix)]
            paths,
            ..State::default()
        };
        let (state, waits) = (Mutex::new(state), AtomicBool::new(false));
        Ok(Arc::new(Shares { state, limit, waits, addresses, look, carry }))
    }

    /// Every change of the state is complete before anything in it can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its sockets are closed, so that the address is free.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().sockets.is_empty()
    }

    /// A place for a worker's listener. It takes no connection yet.
    pub(crate) fn join(self: &Arc<Self>, worker: usize, listener: Token) -> Share {
        let seat = Arc::new(Seat {
            worker,
            listener,
            open: AtomicUsize::new(0),
            takes: AtomicBool::new(false),
        });
        let mut state = self.lock();
        state.seats.push(Arc::clone(&seat));
        state.acceptor.get_or_insert_with(|| Arc::clone(&seat));
        Share { shares: Arc::clone(self), seat, arrived: VecDeque::new() }
    }

    /// The seat with the fewest connections of those that take some; `first` if it is one of them.
    fn least(state: &State, first: Option<&Arc<Seat>>) -> Option<Arc<Seat>> {
        let taking = state.seats.iter().filter(|seat| seat.takes());
        let rank = |seat: &&Arc<Seat>| (seat.open(), first.is_none_or(|f| !Arc::ptr_eq(f, seat)));
        taking.min_by_key(rank).cloned()
    }

    /// A place for one connection, with the seat that has the fewest. Where nobody takes any, `or` gets it.
    fn place(self: &Arc<Self>, first: Option<&Arc<Seat>>, or: Option<&Arc<Seat>>) -> Option<Place> {
        let state = self.lock();
        let seat = Self::least(&state, first).or_else(|| or.cloned())?;
        // Under the lock, so that a seat that stops taking sees every connection on its way to it.
        seat.open.fetch_add(1, Ordering::SeqCst);
        Some(Place { shares: Arc::clone(self), seat, admitted: false })
    }

    fn is_full(state: &State, limit: usize) -> bool {
        state.seats.iter().map(|seat| seat.open()).sum::<usize>() >= limit
    }

    /// There is room, or somebody takes connections again.
    fn changed(&self) {
        if self.waits.swap(false, Ordering::SeqCst) {
            let acceptor = self.lock().acceptor.clone();
            if let Some(seat) = acceptor {
                (self.look)(seat.worker, seat.listener);
            }
        }
    }
}

impl Seat {
    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn takes(&self) -> bool {
        self.takes.load(Ordering::SeqCst)
    }
}

impl Share {
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.shares.addresses
    }

    /// Whether this worker has to have the sockets in its poll.
    pub(crate) fn is_acceptor(&self) -> bool {
        self.shares.lock().acceptor.as_ref().is_some_and(|seat| Arc::ptr_eq(seat, &self.seat))
    }

    /// Descriptors of the port's sockets, for the acceptor.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<sys::Listener>> {
        self.shares.lock().sockets.iter().map(sys::SharedListener::descriptor).collect()
    }

    /// From now on this worker is given connections, or it is given none.
    pub(crate) fn set_taking(&self, takes: bool) {
        let state = self.shares.lock();
        self.seat.takes.store(takes, Ordering::SeqCst);
        drop(state);
        if takes {
            self.shares.changed();
        }
    }

    /// Whether another worker takes connections.
    pub(crate) fn others_take(&self) -> bool {
        let state = self.shares.lock();
        state.seats.iter().any(|seat| seat.takes() && !Arc::ptr_eq(seat, &self.seat))
    }

    /// Whether the acceptor may accept now. If not, its listener is looked at as soon as it may.
    /// `alone`: what it accepts may all be its own.
    pub(crate) fn may_accept(&self, alone: bool) -> bool {
        let may = || {
            let state = self.shares.lock();
            !Shares::is_full(&state, self.shares.limit)
                && (alone || state.seats.iter().any(|seat| seat.takes()))
        };
        if may() {
            return true;
        }
        self.shares.waits.store(true, Ordering::SeqCst);
        may() // somebody may have made room before the mark
    }

    /// A place for a connection that was accepted here. `alone`: here, if nobody takes it.
    pub(crate) fn place(&self, alone: bool) -> Option<Place> {
        self.shares.place(Some(&self.seat), alone.then_some(&self.seat))
    }

    /// How many connections are on their way to here, if `open` of its own are open.
    pub(crate) fn on_their_way(&self, open: usize) -> usize {
        self.seat.open().saturating_sub(open)
    }

    /// Whether the place is one at this seat.
    pub(crate) fn owns(&self, place: &Place) -> bool {
        Arc::ptr_eq(&place.seat, &self.seat)
    }

    /// A connection has ended.
    pub(crate) fn connection_ends(&self) {
        self.seat.open.fetch_sub(1, Ordering::SeqCst);
        self.shares.changed();
    }

    /// The listener closes. The acceptor's part goes to a worker that takes connections, else to any; with
    /// the last worker the port is closed, unless it is to be `kept` for one that comes back.
    pub(crate) fn leave(mut self, kept: bool) {
        let mut state = self.shares.lock();
        self.seat.takes.store(false, Ordering::SeqCst);
        state.seats.retain(|seat| !Arc::ptr_eq(seat, &self.seat));
        if state.acceptor.as_ref().is_some_and(|seat| Arc::ptr_eq(seat, &self.seat)) {
            state.acceptor = Shares::least(&state, None).or_else(|| state.seats.first().cloned());
        }
        let next = state.acceptor.clone();
        if state.seats.is_empty() && !kept {
            state.close();
        }
        drop(state);
        match next {
            Some(seat) => (self.shares.look)(seat.worker, seat.listener),
            None => self.shares.waits.store(false, Ordering::SeqCst),
        }
        self.arrived.drain(..).for_each(Arrived::pass_on);
    }
}

impl State {
    fn close(&mut self) {
        // Paths first: the system does not reuse an inode while its socket is open.
        #[cfg(unix)]
        for path in self.paths.drain(..) {
            path.remove();
        }
        self.sockets.clear();
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).close();
    }
}

impl Place {
    pub(crate) fn worker(&self) -> usize {
        self.seat.worker
    }

    pub(crate) fn listener(&self) -> Token {
        self.seat.listener
    }

    /// The connection is open: its end is reported by [`Share::connection_ends`].
    pub(crate) fn admit(mut self) {
        self.admitted = true;
    }

    /// Another place, because this worker's listener is gone. `None` if nobody takes connections.
    fn elsewhere(&self) -> Option<Place> {
        let state = self.shares.lock();
        self.seat.takes.store(false, Ordering::SeqCst);
        drop(state);
        self.shares.place(None, None)
    }
}

impl Arrived {
    /// The listener that it was for is gone: it goes to another worker's. If there is none it is closed, as
    /// the backlog of a listener that closes.
    pub(crate) fn pass_on(self) {
        let Some(place) = self.place.elsewhere() else {
            return log::debug!("{}: no worker takes it any more", self.address);
        };
        let shares = Arc::clone(&place.shares);
        (shares.carry)(Arrived { place, ..self });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.admitted {
            return;
        }
        self.seat.open.fetch_sub(1, Ordering::SeqCst);
        self.shares.changed();
        // One that does not take any more may wait for what was on its way.
        if !self.seat.takes() {
            (self.shares.look)(self.seat.worker, self.seat.listener);
        }
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("seat", &self.seat).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What the model keeps of a seat.
    struct Model {
        share: Option<Share>,
        token: Token,
        open: usize,
        takes: bool,
    }

    fn port(limit: usize) -> (Arc<Shares>, mpsc::Receiver<(usize, Token)>) {
        let (looks, looked) = mpsc::channel();
        let looks = Mutex::new(looks);
        let look = move |worker, token| {
            let _ = looks.lock().unwrap().send((worker, token));
        };
        let address = Address::Ip("127.0.0.1:0".parse().unwrap());
        let listener = sys::listen(&address, 1, &crate::SocketOptions::new(), false).unwrap();
        let shares = Shares::new(
            vec![listener],
            #[cfg(unix)]
            Vec::new(),
            limit,
            Box::new(look),
            Box::new(|_| {}),
        );
        (shares.unwrap(), looked)
    }

    // row 232
    #[test]
    fn random_ends_pauses_and_departures_agree_with_a_model() {
        const LIMIT: usize = 40;
        let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..50 {
            let (shares, looked) = port(LIMIT);
            let mut seats: Vec<Model> = (0..4)
                .map(|worker| {
                    let token = Token::new(worker, 1).unwrap();
                    let share = Some(shares.join(worker, token));
                    Model { share, token, open: 0, takes: false }
                })
                .collect();
            // Places on their way, by the worker that they are for.
            let mut on_their_way: Vec<(usize, Place)> = Vec::new();
            let mut refused = false;
            for _ in 0..400 {
                let worker = next(4);
                match next(8) {
                    // The acceptor accepts, if it may.
                    0..=3 => {
                        let acceptors: Vec<usize> = (0..4)
                            .filter(|&at| seats[at].share.as_ref().is_some_and(Share::is_acceptor))
                            .collect();
                        let left = seats.iter().any(|seat| seat.share.is_some());
                        assert_eq!(
                            acceptors.len(),
                            usize::from(left),
                            "one accepts, if any is left"
                        );
                        let Some(&acceptor) = acceptors.first() else { continue };
                        let of_seat = |seat: &Model| seat.share.is_some().then_some(seat.open);
                        let total: usize = seats.iter().filter_map(of_seat).sum();
                        let taking = seats.iter().filter(|seat| seat.share.is_some() && seat.takes);
                        let least = taking.map(|seat| seat.open).min();
                        let share = seats[acceptor].share.as_ref().unwrap();
                        let may = share.may_accept(false);
                        assert_eq!(may, total < LIMIT && least.is_some());
                        refused = !may;
                        if may {
                            let place = share.place(false).unwrap();
                            let to = place.worker();
                            assert!(seats[to].takes && Some(seats[to].open) == least);
                            assert_eq!(place.listener(), seats[to].token);
                            seats[to].open += 1;
                            on_their_way.push((to, place));
                        }
                    }
                    // One arrives, or is lost.
                    4 if !on_their_way.is_empty() => {
                        let (to, place) = on_their_way.swap_remove(next(on_their_way.len()));
                        if seats[to].share.is_some() && next(3) > 0 {
                            place.admit();
                        } else {
                            drop(place);
                            seats[to].open -= 1;
                        }
                    }
                    // One that is open ends.
                    5 => {
                        let waiting = on_their_way.iter().filter(|(to, _)| *to == worker).count();
                        if seats[worker].open > waiting
                            && let Some(share) = &seats[worker].share
                        {
                            assert_eq!(share.on_their_way(seats[worker].open - waiting), waiting);
                            share.connection_ends();
                            seats[worker].open -= 1;
                            if std::mem::take(&mut refused) {
                                assert!(looked.try_iter().count() > 0, "the acceptor goes on");
                            }
                        }
                    }
                    6 => {
                        let Model { share, takes, .. } = &mut seats[worker];
                        if let Some(share) = share {
                            *takes = next(4) > 0;
                            share.set_taking(*takes);
                        }
                    }
                    // Seldom a worker leaves, and may come back.
                    _ if next(10) == 0 => match seats[worker].share.take() {
                        Some(share) => {
                            share.leave(true);
                            seats[worker].takes = false;
                        }
                        None => {
                            // A seat of its own: what was on its way to the old one does not count.
                            on_their_way.retain(|(to, _)| *to != worker);
                            let token = seats[worker].token;
                            seats[worker].share = Some(shares.join(worker, token));
                            seats[worker].open = 0;
                        }
                    },
                    _ => {}
                }
            }
            assert!(!shares.is_closed());
        }
    }

    #[test]
    fn the_last_seat_closes_the_port_unless_it_is_kept() {
        let (shares, _looked) = port(1);
        let token = Token::new(1, 1).unwrap();
        shares.join(0, token).leave(true);
        assert!(!shares.is_closed());
        let (one, other) = (shares.join(0, token), shares.join(1, token));
        assert_eq!(one.descriptors().unwrap().len(), 1);
        one.leave(false);
        assert!(other.is_acceptor() && !shares.is_closed());
        other.leave(false);
        assert!(shares.is_closed());
    }
}
