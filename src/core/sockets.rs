//! Registration of sockets in the poll.

use std::io;

use super::{Core, Entity, Listening};
use crate::sys;
use crate::token::Token;

impl Core {
    pub(crate) fn register_stream(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.stream_mut(token) {
            Some(s) => sys.register(s.socket_mut(), token.to_usize()),
            None => Ok(()),
        }
    }

    pub(crate) fn register_listener(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Listener(l)) => l
                .sockets
                .iter_mut()
                .try_for_each(|one| sys.register(&mut one.socket, token.to_usize())),
            _ => Ok(()),
        }
    }

    /// A listener gets the sockets of its port.
    pub(crate) fn take_sockets(
        &mut self,
        token: Token,
        sockets: Vec<sys::Listener>,
    ) -> io::Result<()> {
        if let Some(listener) = self.listener_mut(token) {
            listener.sockets = sockets.into_iter().map(Listening::new).collect();
        }
        self.register_listener(token).inspect_err(|_| self.give_sockets_back(token))
    }

    /// It has none again.
    fn give_sockets_back(&mut self, token: Token) {
        let Core { sys, table, .. } = self;
        if let Some(Entity::Listener(listener)) = table.entity_mut(token) {
            for mut one in listener.sockets.drain(..) {
                sys.deregister(&mut one.socket, false);
            }
        }
    }

    pub(crate) fn register_datagram(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Datagram(d)) => sys.register(&mut d.socket, token.to_usize()),
            Some(Entity::SessionSocket(s)) => sys.register(&mut s.socket.socket, token.to_usize()),
            _ => Ok(()),
        }
    }

    /// A UDP socket reported an error: makes sure that it stays in the poll.
    pub(crate) fn survive_datagram_error(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Datagram(d)) => sys.survive_error(&mut d.socket, token.to_usize()),
            Some(Entity::SessionSocket(s)) => {
                sys.survive_error(&mut s.socket.socket, token.to_usize())
            }
            _ => Ok(()),
        }
    }
}
