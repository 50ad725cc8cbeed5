//! Pages of a listing of the whole tree, strict or as a survey.

use super::entries::Wanted;
use super::failure::Outcome;
use super::tree::Root;
use super::walk::Walk;
use crate::store::{ListOptions, ListPage, SurveyOptions, SurveyPage};

const DEFAULT_PAGE: usize = 1000;

/// # Errors
/// Also an error of any directory on the way.
pub(super) fn list(root: &Root, options: &ListOptions) -> Outcome<ListPage> {
    let after = options.start_after.as_deref();
    let wanted = Wanted { prefix: &options.prefix, after, after_may_be_folder: false, fold: options.delimiter };
    let mut walk = Walk::strict(root, wanted, options.limit.unwrap_or(DEFAULT_PAGE));
    walk.run()?;
    Ok(ListPage { more: walk.is_cut(), prefixes: walk.prefixes, objects: walk.page.objects })
}

pub(super) fn survey(root: &Root, options: &SurveyOptions) -> Outcome<SurveyPage> {
    let after = options.start_after.as_deref();
    let wanted = Wanted { prefix: &options.prefix, after, after_may_be_folder: true, fold: false };
    let mut walk = Walk::survey(root, wanted, options.limit.unwrap_or(DEFAULT_PAGE));
    walk.run()?;
    Ok(walk.page)
}
