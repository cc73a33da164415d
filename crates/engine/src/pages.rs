//! Who has which page of the KV cache. Only numbers live here; what is in a page is the model's business.
//!
//! A page that is full and computed is *published*: sequences that begin alike share it, and it stays when the last
//! of them has ended, until its memory is needed. Nobody writes into a published page any more.

mod prefixes;

use prefixes::{Link, Prefixes};

/// Positions per page. Small, because the last page of a sequence is half empty on average; large enough that a
/// page's keys of one head fill a few cache lines.
pub(crate) const PAGE_TOKENS: usize = 32;

pub(crate) type PageId = u32;

/// The pages of a cache of fixed size. Each is free, held by one table or more, or published and idle.
#[derive(Debug)]
pub(crate) struct Pages {
    /// How many tables hold each page.
    holders: Vec<u32>,
    /// The last one freed goes out first: its memory has been touched already.
    free: Vec<PageId>,
    prefixes: Prefixes,
}

/// The pages of one sequence: page `i` holds positions from `i * PAGE_TOKENS` on.
#[derive(Debug, Default)]
pub(crate) struct Table {
    ids: Vec<PageId>,
    /// How many of the first pages are published.
    published: usize,
    /// The last of these.
    link: Link,
}

// === impl Pages ===

impl Pages {
    pub fn new(total: usize) -> Pages {
        let last = PageId::try_from(total).expect("LoadOptions bounds slots and context");
        Pages { holders: vec![0; total], free: (0..last).rev().collect(), prefixes: Prefixes::new(total) }
    }

    #[cfg(test)]
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// How many pages tables can still get: the free ones and the idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.prefixes.idle()
    }

    /// Adds published pages to `table` as far as they hold `tokens`, the sequence's tokens from position 0 on. A table
    /// that holds another page already stays as it is.
    ///
    /// The page with the last token is left out: somebody has to compute the scores after it.
    pub fn reuse(&mut self, table: &mut Table, tokens: &[u32]) {
        if table.ids.len() > table.published {
            return;
        }
        for run in whole_pages(tokens).skip(table.published) {
            let Some((page, link)) = self.prefixes.find(table.link, run) else { return };
            self.hold(page);
            table.ids.push(page);
            table.publish(link);
        }
    }

    /// How many pages that other tables hold [`reuse`](Pages::reuse) would find.
    pub fn held(&self, tokens: &[u32]) -> usize {
        let mut before = Link::default();
        let found = whole_pages(tokens).map_while(|run| {
            let (page, link) = self.prefixes.find(before, run)?;
            before = link;
            Some(page)
        });
        found.filter(|page| self.holders[*page as usize] > 0).count()
    }

    /// Grows `table` to hold `positions`, at the cost of the pages that have been idle longest if need be. False,
    /// and nothing changed, when that is not enough.
    pub fn grow(&mut self, table: &mut Table, positions: usize) -> bool {
        let missing = pages_for(positions).saturating_sub(table.ids.len());
        if missing > self.available() {
            return false;
        }
        for _ in 0..missing {
            let page = self.free.pop().unwrap_or_else(|| self.prefixes.evict());
            self.holders[page as usize] = 1;
            table.ids.push(page);
        }
        true
    }

    /// Publishes the full pages of `table`, whose sequence has the computed tokens `tokens`. A page that another
    /// sequence has published first is given up for that one.
    pub fn publish(&mut self, table: &mut Table, tokens: &[u32]) {
        for run in tokens.chunks_exact(PAGE_TOKENS).skip(table.published) {
            let own = table.ids[table.published];
            let (page, link) = self.prefixes.publish(table.link, run, own);
            if page != own {
                self.hold(page);
                table.ids[table.published] = page;
                self.leave(own);
            }
            table.publish(link);
        }
    }

    /// Takes back the pages of `table` that lie wholly behind its first `positions`, and the one in which they end if
    /// it is published, because what comes next must not be written into it. Returns how many positions are left.
    pub fn cut(&mut self, table: &mut Table, positions: usize) -> usize {
        let whole = positions / PAGE_TOKENS;
        let positions = if whole < table.published { whole * PAGE_TOKENS } else { positions };
        for page in table.ids.drain(pages_for(positions).min(table.ids.len())..).rev() {
            // The last page first, so that none becomes idle after the one before it and outlives it.
            leave(&mut self.holders, &mut self.prefixes, &mut self.free, page);
        }
        if table.ids.len() < table.published {
            table.published = table.ids.len();
            table.link = table.ids.last().map_or(Link::default(), |page| self.prefixes.link(*page));
        }
        positions
    }

    /// Takes back all of them.
    pub fn release(&mut self, mut table: Table) {
        self.cut(&mut table, 0);
    }

    fn hold(&mut self, page: PageId) {
        self.holders[page as usize] += 1;
        self.prefixes.wake(page);
    }

    fn leave(&mut self, page: PageId) {
        leave(&mut self.holders, &mut self.prefixes, &mut self.free, page);
    }
}

/// One table less holds the page. The parts of [`Pages`] apart, because a table is being drained meanwhile.
fn leave(holders: &mut [u32], prefixes: &mut Prefixes, free: &mut Vec<PageId>, page: PageId) {
    let holders = &mut holders[page as usize];
    *holders -= 1;
    if *holders == 0 && !prefixes.rest(page) {
        free.push(page);
    }
}

// === impl Table ===

impl Table {
    pub fn ids(&self) -> &[PageId] {
        &self.ids
    }

    /// The positions of the published pages.
    pub fn published(&self) -> usize {
        self.published * PAGE_TOKENS
    }

    fn publish(&mut self, link: Link) {
        self.published += 1;
        self.link = link;
    }
}

/// The tokens of each full page, up to the one with the last token.
fn whole_pages(tokens: &[u32]) -> impl Iterator<Item = &[u32]> {
    tokens[..tokens.len().saturating_sub(1)].chunks_exact(PAGE_TOKENS)
}

pub(crate) fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE_TOKENS)
}

#[cfg(test)]
mod tests;
