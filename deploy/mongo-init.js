// Runs once, on an empty volume: the account that MONGODB_URL names, for its own database only.
db.getSiblingDB("machina").createUser({
  user: "machina",
  pwd: process.env.MONGO_PASSWORD,
  roles: [{ role: "readWrite", db: "machina" }],
});
