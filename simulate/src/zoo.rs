//! The bug zoo.

use crate::model::server::Server;
use crate::world::plan::Plan;

pub struct Animal {
    pub name: &'static str,
}

pub struct Planted;

impl Animal {
    pub fn plant(&self, _plan: &mut Plan) -> Planted {
        Planted
    }

    pub fn change_scripts(&self, _server: &mut Server) {}
}
