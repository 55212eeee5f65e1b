//! Values of one kind in one vector, named by keys that never mean another value.

use std::{fmt, marker::PhantomData};

/// Names one value of an [`Arena`], also after the value is gone.
pub struct Key<T> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> Key<T> {
    /// The place in the arena: dense, and used again after the value is gone.
    pub fn index(self) -> usize {
        self.index as usize
    }
}
#[cfg(test)]
impl<T> Key<T> {
    /// Of no value.
    pub const NOWHERE: Self = Self { index: u32::MAX, generation: 0, kind: PhantomData };
}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Key<T> {}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// The generation beside the beginning of the value.
#[repr(C)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// It grows by a quarter, not to the double: values are large, and what one more than ever before
/// takes stays for ever.
const GROWTH: usize = 4;

/// A vector with holes, which are filled again.
pub struct Arena<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    pub fn insert(&mut self, value: T) -> Key<T> {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.value = Some(value);
            return Key { index, generation: place.generation, kind: PhantomData };
        }
        let index = self.places.len() as u32;
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact((self.places.len() / GROWTH).max(GROWTH));
        }
        self.places.push(Place { generation: 0, value: Some(value) });
        Key { index, generation: 0, kind: PhantomData }
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    /// The value at a place, with its key.
    pub fn at_mut(&mut self, index: usize) -> Option<(Key<T>, &mut T)> {
        let place = self.places.get_mut(index)?;
        let key = Key { index: index as u32, generation: place.generation, kind: PhantomData };
        place.value.as_mut().map(|value| (key, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| place.value.as_mut())
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_outlives_its_value_without_naming_another() {
        let mut arena = Arena::default();
        let old = arena.insert('a');
        assert_eq!(arena.remove(old), Some('a'));
        let new = arena.insert('b');
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.get_mut(new), Some(&mut 'b'));
        assert_eq!(arena.remove(old), None);
        assert_eq!(arena.len(), 1);
    }
}
