//! Numbers for places of the source, so that a record of many accesses has room for them.

use super::fault::Place;
use std::cell::{Cell, RefCell};
use std::panic::Location;

/// Places with a number of their own; further ones share the last.
const MOST: usize = 1 << 12;

/// Numbers that are found without a search.
const RECENT: usize = 64;

pub(super) struct Places {
    all: RefCell<Vec<Place>>,
    recent: [Cell<(*const Location<'static>, u16)>; RECENT],
}

impl Places {
    pub(super) fn new() -> Self {
        Self { all: RefCell::default(), recent: [const { Cell::new((std::ptr::null(), 0)) }; RECENT] }
    }

    /// A place's number.
    #[inline(always)]
    pub(super) fn number(&self, place: Place) -> u16 {
        let at: *const Location<'static> = place.0;
        let recent = &self.recent[at as usize / 8 % RECENT];
        let (found, number) = recent.get();
        if std::ptr::eq(found, at) {
            return number;
        }
        let number = self.searched(place);
        recent.set((at, number));
        number
    }

    #[inline(never)]
    fn searched(&self, place: Place) -> u16 {
        let mut all = self.all.borrow_mut();
        let found = all.iter().position(|known| std::ptr::eq(known.0, place.0));
        let number = found.unwrap_or_else(|| {
            if all.len() < MOST {
                all.push(place);
            }
            all.len() - 1
        });
        number as u16
    }

    /// The place with a number.
    pub(super) fn place(&self, number: u16) -> Place {
        self.all.borrow()[usize::from(number)]
    }
}
