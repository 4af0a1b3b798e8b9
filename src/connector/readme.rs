//! The steps in order, for this tenant.

use super::plan::Plan;

pub(super) fn write(plan: &Plan) -> String {
    format!("# Exchange's side of Gatepost: tenant {}\n", plan.tenant)
}
