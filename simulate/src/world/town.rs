//! Who is there: the nodes by their place, whichever instance is in it.

use super::node::Instance;
use super::shared::Shared;
use std::sync::{Arc, Mutex};

pub struct Town {
    pub shared: Arc<Shared>,
    places: Mutex<Vec<Place>>,
}

#[derive(Default)]
struct Place {
    lives: usize,
    instance: Option<Arc<Instance>>,
}

impl Town {
    pub fn new(shared: Arc<Shared>) -> Arc<Self> {
        let places = (0..shared.plan.nodes).map(|_| Place::default()).collect();
        Arc::new(Self { shared, places: Mutex::new(places) })
    }

    pub fn instance(&self, place: usize) -> Option<Arc<Instance>> {
        let places = self.places.lock().expect("nobody panics while holding this lock");
        places[place].instance.clone().filter(|instance| !instance.is_gone())
    }

    pub fn all(&self) -> Vec<Arc<Instance>> {
        (0..self.shared.plan.nodes).filter_map(|place| self.instance(place)).collect()
    }

    /// Begins a new life in this place, if nobody lives there.
    pub fn start(&self, place: usize) {
        if self.instance(place).is_some() {
            return;
        }
        let mut places = self.places.lock().expect("nobody panics while holding this lock");
        let place_of = &mut places[place];
        place_of.lives += 1;
        let name = format!("n{place}.{}", place_of.lives);
        place_of.instance = Some(Instance::start(&self.shared, name));
    }
}
