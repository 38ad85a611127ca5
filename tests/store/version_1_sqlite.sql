-- A database as version 1 of the schema had it, made by `sqlite3 nst.sqlite .dump`. Never to be changed.
BEGIN TRANSACTION;
CREATE TABLE blob_uses (
	job_number INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	PRIMARY KEY (job_number, kind, sha256), 
	FOREIGN KEY(job_number) REFERENCES jobs (number) ON DELETE CASCADE, 
	FOREIGN KEY(sha256) REFERENCES blobs (sha256)
);
INSERT INTO "blob_uses" VALUES(1,'request','15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f');
INSERT INTO "blob_uses" VALUES(1,'picture','8c67bf3e7f711e1b28ff72c669b70755cc53f256f6406e8aebb49222370f06ee');
INSERT INTO "blob_uses" VALUES(1,'picture','a249e87e1e6113da81cdd8a154c222283fbcceff6dd3727a63bf97eee562dfb3');
INSERT INTO "blob_uses" VALUES(2,'request','15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f');
INSERT INTO "blob_uses" VALUES(2,'picture','8c67bf3e7f711e1b28ff72c669b70755cc53f256f6406e8aebb49222370f06ee');
INSERT INTO "blob_uses" VALUES(2,'picture','a249e87e1e6113da81cdd8a154c222283fbcceff6dd3727a63bf97eee562dfb3');
INSERT INTO "blob_uses" VALUES(1,'result','8ef99d17b420fd37a306ac016be950cab3836d24f801fb29c09b29d6538e9146');
CREATE TABLE blobs (
	sha256 VARCHAR NOT NULL, 
	size BIGINT NOT NULL, 
	PRIMARY KEY (sha256)
);
INSERT INTO "blobs" VALUES('15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f',10);
INSERT INTO "blobs" VALUES('8c67bf3e7f711e1b28ff72c669b70755cc53f256f6406e8aebb49222370f06ee',10);
INSERT INTO "blobs" VALUES('a249e87e1e6113da81cdd8a154c222283fbcceff6dd3727a63bf97eee562dfb3',12);
INSERT INTO "blobs" VALUES('8ef99d17b420fd37a306ac016be950cab3836d24f801fb29c09b29d6538e9146',8);
CREATE TABLE events (
	job_number INTEGER NOT NULL, 
	sequence BIGINT NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (job_number, sequence), 
	FOREIGN KEY(job_number) REFERENCES jobs (number) ON DELETE CASCADE
);
INSERT INTO "events" VALUES(1,1,X'6163636570746564');
INSERT INTO "events" VALUES(2,1,X'6163636570746564');
INSERT INTO "events" VALUES(1,4294967296,X'636F6D706C65746564');
CREATE TABLE jobs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	request_id VARCHAR, 
	request_digest VARCHAR NOT NULL, 
	disconnect_policy VARCHAR NOT NULL, 
	deadline DOUBLE, 
	options BLOB NOT NULL, 
	state VARCHAR NOT NULL, 
	epoch INTEGER NOT NULL, 
	lost_runs INTEGER NOT NULL, 
	cancel_requested BOOLEAN NOT NULL, 
	outcome BLOB, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	finished_at DOUBLE, 
	server_id VARCHAR, 
	row_bytes BIGINT NOT NULL, 
	UNIQUE (owner, request_id), 
	UNIQUE (id), 
	FOREIGN KEY(server_id) REFERENCES servers (id)
);
INSERT INTO "jobs" VALUES(1,'ended','ada','ended','15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f','keep_running',NULL,X'6F7074696F6E73','succeeded',1,0,0,X'77656C6C',1700000000.0,1700000000.0,1700000000.0,NULL,28);
INSERT INTO "jobs" VALUES(2,'waiting','ada','waiting','15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f','keep_running',NULL,X'6F7074696F6E73','queued',0,0,0,NULL,1700000000.0,1700000000.0,NULL,NULL,15);
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE servers (
	id VARCHAR NOT NULL, 
	beats BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_server ON jobs (server_id);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX blob_uses_by_blob ON blob_uses (sha256);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',2);
COMMIT;
