//! Who has which page of the KV cache. Only numbers live here; what is in a page is the model's business.

/// Positions per page. Small, because the last page of a sequence is half empty on average; large enough that a
/// page's keys of one head fill a few cache lines.
pub(crate) const PAGE_TOKENS: usize = 32;

pub(crate) type PageId = u32;

/// The free pages of a cache of fixed size.
#[derive(Debug)]
pub(crate) struct Pages {
    total: usize,
    /// The last one freed goes out first: its memory has been touched already.
    free: Vec<PageId>,
}

/// The pages of one sequence: page `i` holds positions from `i * PAGE_TOKENS` on.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<PageId>);

impl Pages {
    /// Enough for `slots` sequences of `context_length` positions.
    pub fn new(slots: usize, context_length: usize) -> Pages {
        let total = slots * pages_for(context_length);
        let last = PageId::try_from(total).expect("LoadOptions bounds slots and context");
        Pages { total, free: (0..last).rev().collect() }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Grows `table` to hold `positions`. False, and nothing changed, when too few pages are free.
    pub fn grow(&mut self, table: &mut Table, positions: usize) -> bool {
        let missing = pages_for(positions).saturating_sub(table.0.len());
        let Some(left) = self.free.len().checked_sub(missing) else { return false };
        table.0.extend(self.free.drain(left..).rev());
        true
    }

    /// Takes back the pages of `table` that lie wholly behind its first `positions`.
    pub fn shrink(&mut self, table: &mut Table, positions: usize) {
        let kept = pages_for(positions).min(table.0.len());
        self.free.extend(table.0.drain(kept..).rev());
    }

    /// Takes back all of them.
    pub fn release(&mut self, mut table: Table) {
        self.shrink(&mut table, 0);
    }
}

impl Table {
    pub fn ids(&self) -> &[PageId] {
        &self.0
    }
}

pub(crate) fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_grows_by_whole_pages_and_gives_them_back() {
        let mut pages = Pages::new(2, 3 * PAGE_TOKENS - 1);
        assert_eq!((pages.total(), pages.free()), (6, 6));
        let mut table = Table::default();
        assert!(pages.grow(&mut table, 1));
        assert!(pages.grow(&mut table, PAGE_TOKENS));
        assert_eq!((table.ids(), pages.free()), (&[0][..], 5));
        assert!(pages.grow(&mut table, PAGE_TOKENS + 1));
        assert_eq!(table.ids(), &[0, 1]);
        pages.shrink(&mut table, PAGE_TOKENS);
        assert_eq!((table.ids(), pages.free()), (&[0][..], 5));
        pages.release(table);
        assert_eq!(pages.free(), 6);
    }

    #[test]
    fn a_table_that_cannot_grow_stays_as_it_is() {
        let mut pages = Pages::new(1, 2 * PAGE_TOKENS);
        let mut table = Table::default();
        assert!(pages.grow(&mut table, PAGE_TOKENS));
        assert!(!pages.grow(&mut table, 3 * PAGE_TOKENS));
        assert_eq!((table.ids().len(), pages.free()), (1, 1));
    }

    #[test]
    fn a_freed_page_is_the_next_to_go_out() {
        let mut pages = Pages::new(4, PAGE_TOKENS);
        let (mut first, mut second) = (Table::default(), Table::default());
        assert!(pages.grow(&mut first, 1) && pages.grow(&mut second, 1));
        pages.release(first);
        let mut third = Table::default();
        assert!(pages.grow(&mut third, 1));
        assert_eq!(third.ids(), &[0]);
    }
}
