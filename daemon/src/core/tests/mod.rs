mod claims;
mod controls;
mod kernel;
mod model;
mod places;
mod refusals;
mod scripts;
mod storms;
