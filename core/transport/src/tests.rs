mod attack;
mod pair;
mod path;
mod session;
mod tcp;
