mod claims;
mod controls;
mod kernel;
mod model;
mod scripts;
mod storms;
