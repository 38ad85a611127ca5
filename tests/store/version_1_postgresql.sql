-- A database as version 1 of the schema had it, made by `pg_dump --inserts`, without comments and settings. Never to be changed.
CREATE TABLE public.blob_uses (
    job_number bigint NOT NULL,
    kind character varying NOT NULL,
    sha256 character varying NOT NULL
);
CREATE TABLE public.blobs (
    sha256 character varying NOT NULL,
    size bigint NOT NULL
);
CREATE TABLE public.events (
    job_number bigint NOT NULL,
    sequence bigint NOT NULL,
    data bytea NOT NULL
);
CREATE TABLE public.jobs (
    number bigint NOT NULL,
    id character varying NOT NULL,
    owner character varying NOT NULL,
    request_id character varying,
    request_digest character varying NOT NULL,
    disconnect_policy character varying NOT NULL,
    deadline double precision,
    options bytea NOT NULL,
    state character varying NOT NULL,
    epoch integer NOT NULL,
    lost_runs integer NOT NULL,
    cancel_requested boolean NOT NULL,
    outcome bytea,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    finished_at double precision,
    server_id character varying,
    row_bytes bigint NOT NULL
);
CREATE SEQUENCE public.jobs_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.jobs_number_seq OWNED BY public.jobs.number;
CREATE TABLE public.schema_version (
    version integer NOT NULL
);
CREATE TABLE public.servers (
    id character varying NOT NULL,
    beats bigint NOT NULL
);
ALTER TABLE ONLY public.jobs ALTER COLUMN number SET DEFAULT nextval('public.jobs_number_seq'::regclass);
INSERT INTO public.blob_uses VALUES (1, 'request', '15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f');
INSERT INTO public.blob_uses VALUES (1, 'picture', '8c67bf3e7f711e1b28ff72c669b70755cc53f256f6406e8aebb49222370f06ee');
INSERT INTO public.blob_uses VALUES (1, 'picture', 'a249e87e1e6113da81cdd8a154c222283fbcceff6dd3727a63bf97eee562dfb3');
INSERT INTO public.blob_uses VALUES (2, 'request', '15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f');
INSERT INTO public.blob_uses VALUES (2, 'picture', '8c67bf3e7f711e1b28ff72c669b70755cc53f256f6406e8aebb49222370f06ee');
INSERT INTO public.blob_uses VALUES (2, 'picture', 'a249e87e1e6113da81cdd8a154c222283fbcceff6dd3727a63bf97eee562dfb3');
INSERT INTO public.blob_uses VALUES (1, 'result', '8ef99d17b420fd37a306ac016be950cab3836d24f801fb29c09b29d6538e9146');
INSERT INTO public.blobs VALUES ('15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f', 10);
INSERT INTO public.blobs VALUES ('8c67bf3e7f711e1b28ff72c669b70755cc53f256f6406e8aebb49222370f06ee', 10);
INSERT INTO public.blobs VALUES ('a249e87e1e6113da81cdd8a154c222283fbcceff6dd3727a63bf97eee562dfb3', 12);
INSERT INTO public.blobs VALUES ('8ef99d17b420fd37a306ac016be950cab3836d24f801fb29c09b29d6538e9146', 8);
INSERT INTO public.events VALUES (1, 1, '\x6163636570746564');
INSERT INTO public.events VALUES (2, 1, '\x6163636570746564');
INSERT INTO public.events VALUES (1, 4294967296, '\x636f6d706c65746564');
INSERT INTO public.jobs VALUES (2, 'waiting', 'ada', 'waiting', '15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f', 'keep_running', NULL, '\x6f7074696f6e73', 'queued', 0, 0, false, NULL, 1700000000, 1700000000, NULL, NULL, 15);
INSERT INTO public.jobs VALUES (1, 'ended', 'ada', 'ended', '15042daf7cd88b6687dd1531a091ad59822a3ad4b0eff186aec629a992ebd53f', 'keep_running', NULL, '\x6f7074696f6e73', 'succeeded', 1, 0, false, '\x77656c6c', 1700000000, 1700000000, 1700000000, NULL, 28);
INSERT INTO public.schema_version VALUES (1);
SELECT pg_catalog.setval('public.jobs_number_seq', 2, true);
ALTER TABLE ONLY public.blob_uses
    ADD CONSTRAINT blob_uses_pkey PRIMARY KEY (job_number, kind, sha256);
ALTER TABLE ONLY public.blobs
    ADD CONSTRAINT blobs_pkey PRIMARY KEY (sha256);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (job_number, sequence);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_id_key UNIQUE (id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_owner_request_id_key UNIQUE (owner, request_id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.servers
    ADD CONSTRAINT servers_pkey PRIMARY KEY (id);
CREATE INDEX blob_uses_by_blob ON public.blob_uses USING btree (sha256);
CREATE INDEX jobs_by_owner ON public.jobs USING btree (owner, number);
CREATE INDEX jobs_by_server ON public.jobs USING btree (server_id);
CREATE INDEX jobs_by_state ON public.jobs USING btree (state, number);
ALTER TABLE ONLY public.blob_uses
    ADD CONSTRAINT blob_uses_job_number_fkey FOREIGN KEY (job_number) REFERENCES public.jobs(number) ON DELETE CASCADE;
ALTER TABLE ONLY public.blob_uses
    ADD CONSTRAINT blob_uses_sha256_fkey FOREIGN KEY (sha256) REFERENCES public.blobs(sha256);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_job_number_fkey FOREIGN KEY (job_number) REFERENCES public.jobs(number) ON DELETE CASCADE;
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_server_id_fkey FOREIGN KEY (server_id) REFERENCES public.servers(id);
