//! The ways between hosts, and what parts them.

use crate::error::Error;

use super::{Link, Sim, wrong};

impl Sim {
    /// Describes the way between two hosts, in both directions, from now on.
    ///
    /// # Errors
    /// A host of that name does not exist; a host is linked to itself; the link is one that cannot
    /// exist (a bandwidth of zero).
    pub fn link(&mut self, a: &str, b: &str, link: Link) -> Result<(), Error> {
        self.link_from(a, b, link.clone())?;
        self.link_from(b, a, link)
    }

    /// Describes one direction only.
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub fn link_from(&mut self, from: &str, to: &str, link: Link) -> Result<(), Error> {
        let what = || format!("cannot link {from} to {to}");
        if let Some(expected) = link.wrong {
            return Err(wrong(what(), expected));
        }
        let (a, b) = (self.index_of(from)?, self.index_of(to)?);
        if a == b {
            return Err(wrong(what(), "expected two hosts; a host reaches itself by its loopback"));
        }
        self.world_mut().set_link(a, b, link);
        Ok(())
    }

    /// Describes the ways that have no description of their own.
    ///
    /// # Errors
    /// The link is one that cannot exist.
    pub fn default_link(&mut self, link: Link) -> Result<(), Error> {
        if let Some(expected) = link.wrong {
            return Err(wrong("cannot use this link", expected));
        }
        self.world_mut().set_default_link(link);
        Ok(())
    }

    /// Lets nothing pass between two sets of hosts, in both directions, until
    /// [`heal`](Self::heal).
    ///
    /// # Errors
    /// A host of that name does not exist, or is on both sides.
    pub fn partition(&mut self, some: &[&str], others: &[&str]) -> Result<(), Error> {
        self.block(some, others, u64::MAX)?;
        self.block(others, some, u64::MAX)
    }

    /// Lets nothing pass from the first set of hosts to the second; the other way stays open.
    ///
    /// # Errors
    /// As [`partition`](Self::partition).
    pub fn partition_one_way(&mut self, from: &[&str], to: &[&str]) -> Result<(), Error> {
        self.block(from, to, u64::MAX)
    }

    /// Lets everything pass again, in both directions.
    ///
    /// # Errors
    /// As [`partition`](Self::partition).
    pub fn heal(&mut self, some: &[&str], others: &[&str]) -> Result<(), Error> {
        self.block(some, others, 0)?;
        self.block(others, some, 0)
    }

    fn block(&mut self, from: &[&str], to: &[&str], until: u64) -> Result<(), Error> {
        // All names first: a set that is refused changes nothing.
        let mut ways = Vec::new();
        for a in from {
            for b in to {
                let way = (self.index_of(a)?, self.index_of(b)?);
                if way.0 == way.1 {
                    let what = format!("cannot part {a} from {b}");
                    return Err(wrong(what, "expected two sets without a host in common"));
                }
                ways.push(way);
            }
        }
        let world = self.world_mut();
        world.leave();
        ways.into_iter().for_each(|(a, b)| world.partition(a, b, until));
        Ok(())
    }
}
