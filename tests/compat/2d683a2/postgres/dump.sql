SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE FUNCTION public.account_is_revised() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN UPDATE account SET revision = revision + 1 WHERE owner = NEW.owner; RETURN NULL; END $$;
CREATE FUNCTION public.entries_are_append_only() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN RAISE EXCEPTION 'entries are append-only'; END $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.account (
    owner text NOT NULL,
    credit_limit bigint,
    length text NOT NULL,
    period bigint NOT NULL,
    ends bigint NOT NULL,
    next_set bigint NOT NULL,
    next_limit bigint,
    next_length text,
    entries bigint NOT NULL,
    live bigint NOT NULL,
    beyond bigint NOT NULL,
    silent bigint NOT NULL,
    rate bigint NOT NULL,
    waits_until_us bigint NOT NULL,
    silent_from_us bigint NOT NULL,
    revision bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.alert (
    owner text NOT NULL,
    period bigint NOT NULL,
    percent bigint NOT NULL,
    at_us bigint NOT NULL,
    spent bigint NOT NULL,
    spendable bigint NOT NULL,
    sent_us bigint,
    tries bigint NOT NULL,
    next_try_us bigint NOT NULL
);
CREATE TABLE public.api_key (
    id text NOT NULL,
    hash text NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    owner text,
    created_us bigint NOT NULL,
    revoked_us bigint
);
CREATE TABLE public.attempt (
    id text NOT NULL,
    job text NOT NULL,
    owner text NOT NULL,
    period bigint NOT NULL,
    started_us bigint NOT NULL,
    lease_until_us bigint NOT NULL,
    live bigint NOT NULL,
    ended_us bigint,
    reason text,
    told bigint NOT NULL,
    seq bigint NOT NULL,
    rates bigint NOT NULL,
    cpus_ppm bigint NOT NULL,
    gpus bigint NOT NULL,
    stop_us bigint NOT NULL,
    cpu_us bigint NOT NULL,
    cpu_allocated_us bigint NOT NULL,
    gpu_usage text,
    tokens bigint NOT NULL,
    told_tokens bigint NOT NULL,
    accounted_cpu bigint NOT NULL,
    accounted_gpu bigint NOT NULL,
    accounted_token bigint NOT NULL,
    told_cpu_us bigint NOT NULL,
    told_gpu_us bigint NOT NULL,
    charged_cpu bigint NOT NULL,
    charged_gpu bigint NOT NULL,
    charged_token bigint NOT NULL,
    overshoot bigint NOT NULL,
    ceilings text NOT NULL,
    holds text NOT NULL,
    next_period bigint,
    next_amount bigint,
    waits bigint NOT NULL,
    rate bigint NOT NULL,
    rate_since_us bigint NOT NULL,
    rate_from bigint NOT NULL,
    last_entry bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.credit_grant (
    owner text NOT NULL,
    id bigint NOT NULL,
    amount bigint NOT NULL,
    charged bigint NOT NULL,
    held bigint NOT NULL,
    expires_s bigint,
    why text NOT NULL,
    CONSTRAINT credit_grant_amount_check CHECK ((amount > 0)),
    CONSTRAINT credit_grant_charged_check CHECK ((charged >= 0)),
    CONSTRAINT credit_grant_check CHECK (((charged + held) <= amount)),
    CONSTRAINT credit_grant_held_check CHECK ((held >= 0)),
    CONSTRAINT credit_grant_id_check CHECK ((id > 0))
);
CREATE TABLE public.entry (
    owner text NOT NULL,
    number bigint NOT NULL,
    at_us bigint NOT NULL,
    kind text NOT NULL,
    period bigint NOT NULL,
    day bigint NOT NULL,
    source bigint NOT NULL,
    amount bigint NOT NULL,
    cpu bigint NOT NULL,
    gpu bigint NOT NULL,
    token bigint NOT NULL,
    cpu_us bigint NOT NULL,
    gpu_us bigint NOT NULL,
    tokens bigint NOT NULL,
    job text,
    attempt text,
    by text NOT NULL,
    why text NOT NULL,
    previous bigint
);
CREATE TABLE public.epoch (
    number bigint NOT NULL,
    settles_until_us bigint NOT NULL
);
CREATE TABLE public.identity (
    attempt text NOT NULL,
    body text NOT NULL
);
CREATE TABLE public.job (
    id text NOT NULL,
    owner text NOT NULL,
    kind text NOT NULL,
    name text,
    credit_limit bigint,
    started_us bigint NOT NULL,
    stopped bigint NOT NULL,
    tokens bigint NOT NULL,
    tokens_charged bigint NOT NULL,
    tokens_overshoot bigint NOT NULL,
    charged bigint NOT NULL,
    held bigint NOT NULL,
    beyond bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.jobmeter_place (
    one integer NOT NULL,
    place text NOT NULL,
    CONSTRAINT jobmeter_place_one_check CHECK ((one = 1))
);
CREATE TABLE public.jobmeter_schema (
    version bigint NOT NULL
);
CREATE TABLE public.once (
    key text NOT NULL,
    body text NOT NULL,
    answer text NOT NULL
);
CREATE TABLE public.period (
    owner text NOT NULL,
    start bigint NOT NULL,
    ends bigint NOT NULL,
    credit_limit bigint,
    adjusted bigint NOT NULL,
    charged bigint NOT NULL,
    held bigint NOT NULL,
    alerted bigint DEFAULT 0 NOT NULL,
    CONSTRAINT period_charged_check CHECK ((charged >= 0)),
    CONSTRAINT period_check CHECK ((start < ends)),
    CONSTRAINT period_held_check CHECK ((held >= 0))
)
WITH (fillfactor='50');
CREATE TABLE public.rates (
    version bigint NOT NULL,
    card text NOT NULL,
    since_us bigint NOT NULL,
    by text NOT NULL
);
CREATE TABLE public.receipt (
    attempt text NOT NULL,
    body text NOT NULL
);
CREATE TABLE public.reservation (
    id text NOT NULL,
    job text NOT NULL,
    owner text NOT NULL,
    tokens bigint NOT NULL,
    rates bigint NOT NULL,
    until_us bigint NOT NULL,
    holds text NOT NULL,
    open bigint NOT NULL,
    settled_us bigint,
    used bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.usage_day (
    owner text NOT NULL,
    day bigint NOT NULL,
    amount bigint NOT NULL,
    cpu bigint NOT NULL,
    gpu bigint NOT NULL,
    token bigint NOT NULL,
    cpu_us bigint NOT NULL,
    gpu_us bigint NOT NULL,
    tokens bigint NOT NULL
)
WITH (fillfactor='50');
INSERT INTO public.account VALUES ('cat', 7000000000, 'month', 1743465600, 1746057600, 0, NULL, NULL, 8, 0, 0, 0, 0, 0, 9223372036854775807, 10);
INSERT INTO public.account VALUES ('', 0, 'day', 1743379200, 1743465600, 0, NULL, NULL, 8, 0, 0, 0, 0, 0, 0, 8);
INSERT INTO public.account VALUES ('ann', 5000000000, 'day', 1743465600, 1743552000, 0, NULL, NULL, 40, 0, 0, 307203, 0, 0, 1743498601498190, 40);
INSERT INTO public.account VALUES ('bob', 3000000000, 'day', 1743465600, 1743552000, 0, NULL, NULL, 10, 0, 0, 307203, 0, 0, 9223372036854775807, 14);
INSERT INTO public.account VALUES ('dan', 0, 'day', 1743465600, 1743552000, 0, NULL, NULL, 2, 0, 0, 0, 0, 0, 9223372036854775807, 4);
INSERT INTO public.account VALUES ('eve', NULL, 'day', 1743465600, 1743552000, 0, NULL, NULL, 16, 0, 0, 0, 0, 0, 9223372036854775807, 16);
INSERT INTO public.account VALUES ('fay', 300000, 'day', 1743465600, 1743552000, 0, NULL, NULL, 7, 0, 0, 0, 0, 0, 9223372036854775807, 10);
INSERT INTO public.account VALUES ('Zoë O''Hara', 5000000000, 'day', 1743465600, 1743552000, 0, NULL, NULL, 5, 0, 0, 0, 0, 0, 9223372036854775807, 4);
INSERT INTO public.alert VALUES ('fay', 1743292800, 80, 1743328805936525, 255139, 300000, NULL, 0, 1743328805936525);
INSERT INTO public.alert VALUES ('fay', 1743292800, 100, 1743328806234130, 296707, 300000, NULL, 0, 1743328806234130);
INSERT INTO public.api_key VALUES ('1ba489de7997', '8d6f591dc4e3f7ec59962efe154bf55200d3f87f9c1fea5c27b1f9677040f5ea', 'first admin key', 'admin', NULL, 1743418801061665, NULL);
INSERT INTO public.api_key VALUES ('6324f93c899a', '24dde888329dc99db019318436decf16472072cf972cce9b4430e02b40ddd9d4', 'node-7', 'report', NULL, 1743418801216345, NULL);
INSERT INTO public.api_key VALUES ('6263634d7302', '1bbcf328a672573bb445a1fb1b1791c69c36105a6ce55646f39047426723fa16', 'reader', 'read', NULL, 1743418801218916, NULL);
INSERT INTO public.api_key VALUES ('976f48f60342', '7db9d2140389ed141e70c0387f21ae8b6e64687d4c85cee4688f22043866fdae', 'ann only', 'read', 'ann', 1743418801220940, NULL);
INSERT INTO public.api_key VALUES ('8c59ff324357', 'b313f00e8ca1055e562cf21436a43d1f8e9e5d03643034cca6f6e6bbad919182', 'revoked', 'report', NULL, 1743418801223918, 1743418801225846);
INSERT INTO public.attempt VALUES ('0195e67e-766e-739a-ba1d-ad30e155a866', 'train-2', 'ann', 1743292800, 1743328802432954, 1743328832432954, 0, 1743328802632313, 'completed', 1, 0, 1, 2000000, 0, 7000, 111674, 352180, NULL, 0, 0, 27918, 0, 0, 111674, 0, 27918, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 0, 1743328802432954, 0, 8);
INSERT INTO public.attempt VALUES ('0195e67e-73b9-742b-9c37-fcd53d9b1721', 'train-1', 'ann', 1743292800, 1743328801760753, 1743328831760753, 0, 1743328802393129, 'completed', 1, 0, 1, 2000000, 0, 7000, 360768, 1175788, NULL, 0, 0, 90192, 0, 0, 360768, 0, 90192, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 0, 1743328801760753, 0, 5);
INSERT INTO public.attempt VALUES ('0195e67e-7757-76db-a647-fd4fed5f8e0a', 'train-2', 'ann', 1743292800, 1743328802669110, 1743328832669110, 0, 1743328802701094, 'failed', 1, 0, 1, 2000000, 0, 7000, 2463, 13942, NULL, 0, 0, 615, 0, 0, 2463, 0, 615, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 0, 1743328802669110, 0, 11);
INSERT INTO public.attempt VALUES ('0195e67e-779f-7593-9ce3-a6f8e352d859', 'train-2', 'ann', 1743292800, 1743328802741783, 1743328832741783, 0, 1743328802971208, 'completed', 1, 0, 1, 2000000, 0, 7000, 116886, 396604, NULL, 0, 0, 29221, 0, 0, 116886, 0, 29221, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 0, 1743328802741783, 0, 14);
INSERT INTO public.attempt VALUES ('0195e67e-78af-733f-b1b3-42c80bb8015c', 'chat-1', 'eve', 1743292800, 1743328803018617, 1743328833018617, 0, 1743328803061153, 'signalled', 1, 0, 1, 2000000, 0, 7000, 2676, 24508, NULL, 0, 0, 669, 0, 0, 2676, 0, 669, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 0, 1743328803018617, 0, 4);
INSERT INTO public.attempt VALUES ('0195e67e-7902-746c-bb41-dfc6467fde9d', 'gen-1', 'bob', 1743292800, 1743328803108782, 1743328833668343, 0, 1743328803880766, 'job_limit', 1, 2, 1, 2000000, 0, 7066, 386575, 1436954, NULL, 0, 0, 96643, 0, 0, 386575, 0, 96643, 0, 0, 0, '1:100000', '', NULL, NULL, 1, 127224, 1743328803108782, 0, 7);
INSERT INTO public.attempt VALUES ('0195e67e-7c45-7671-8f16-9cf84748e8d0', 'poor-1', 'fay', 1743292800, 1743328803944166, 1743328835936525, 0, 1743328806252425, 'credits_exhausted', 1, 3, 1, 2000000, 0, 7035, 1186828, 4535630, NULL, 0, 0, 296707, 0, 0, 1186828, 0, 296707, 0, 0, 0, '1:300000', '', NULL, NULL, 1, 129568, 1743328803944166, 0, 6);
INSERT INTO public.attempt VALUES ('0195e67e-85b5-7250-a065-5d9a3b174ca8', 'lost-1', 'ann', 1743292800, 1743328806344715, 1743328836344715, 0, 1743328806373863, 'failed', 1, 0, 1, 2000000, 0, 7000, 1665, 1708, NULL, 0, 0, 416, 0, 0, 1665, 0, 416, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 0, 1743328806344715, 0, 17);
INSERT INTO public.attempt VALUES ('0195e67e-85fc-772f-9132-4c0833eb04f4', 'gpu-0', 'eve', 1743292800, 1743328806417003, 1743328837404401, 0, 1743328808358627, 'completed', 1, 1, 1, 2000000, 1000000, 1407060, 2782, 3020848, '{"GPU-8932f937-d72c-4106-c12f-20bd9faed9f6":{"model":"NVIDIA H200","busy_seconds":0.755212,"allocated_seconds":1.510424}}', 0, 0, 695, 1888030, 0, 2782, 755212, 695, 1888030, 0, 0, '1:9942005;2:9942999', '', NULL, NULL, 0, 642, 1743328806417003, 0, 8);
INSERT INTO public.attempt VALUES ('0195e67e-8fd2-7795-8820-1fb423fd3bb3', 'stop-1', 'cat', 1743292800, 1743328808956438, 1743328838956438, 0, 1743328809960753, 'operator_stop', 1, 1, 1, 2000000, 0, 7055, 1464, 1920550, NULL, 0, 0, 366, 0, 0, 1464, 0, 366, 0, 0, 0, '1:257003', '', NULL, NULL, 0, 367, 1743328808956438, 0, 7);
INSERT INTO public.attempt VALUES ('0195e97f-701e-74bd-82c0-88845d4afbe5', 'night-1', 'ann', 1743379200, 1743379198012283, 1743379230000884, 0, 1743379203982255, 'completed', 1, 10, 1, 2000000, 0, 7068, 5050904, 11864474, NULL, 0, 0, 1262726, 0, 0, 5050904, 0, 1262726, 0, 0, 0, '3:692307;4:7002274', '', NULL, NULL, 0, 218899, 1743379198012283, 0, 35);
INSERT INTO public.attempt VALUES ('8419b27a-0a9d-4f93-bd06-619c2c462c31', 'gpu-1', 'eve', 1743379200, 1743418801228813, 1743418831250120, 0, 1743418801256210, 'completed', 1, 2, 2, 2000000, 3140000, 6000, 4125000, 8250000, '{"GPU-8932f937-d72c-4106-c12f-20bd9faed9f6":{"model":"NVIDIA H200","busy_seconds":4.500000,"allocated_seconds":10.000000},"MIG-41b3b1e4":{"model":"NVIDIA H100 80GB HBM3 MIG 1g.10gb","busy_seconds":2.250000,"allocated_seconds":8.000000}}', 1000, 1000, 1237500, 34537500, 5000000, 4125000, 13815000, 1237500, 34537500, 5000000, 0, '2:4776403;3:35512500;4:39838903;5:40775000', '', NULL, NULL, 0, 0, 1743418801228813, 0, 13);
INSERT INTO public.attempt VALUES ('0d423c56-2927-4dbf-8245-8286b90ffa7f', 'gpu-1', 'eve', 1743379200, 1743418801260325, 1743418831260325, 0, 1743418801268516, 'oom', 1, 0, 2, 2000000, 3140000, 6000, 500000, 1000000, NULL, 0, 0, 150000, 0, 0, 500000, 0, 150000, 0, 0, 0, '1:4326403', '', NULL, NULL, 0, 0, 1743418801260325, 0, 16);
INSERT INTO public.attempt VALUES ('4ac1df38-d51a-4620-82c1-386bb122e58a', 'open-1', 'ann', 1743465600, 1743498001352712, 1743498031398290, 0, NULL, NULL, 0, 1, 2, 2000000, 0, 6000, 750000, 1500000, NULL, 0, 0, 225000, 0, 0, 750000, 0, 225000, 0, 0, 0, '1743418920000001:307203;1743418920000002:532203', '1743465600:0:307203', NULL, NULL, 0, 0, 1743498001352712, 0, 40);
INSERT INTO public.attempt VALUES ('49923294-b860-4c07-b790-5cdb4833790a', 'silent-2', 'Zoë O''Hara', 1743379200, 1743418801281875, 1743418831290370, 0, 1743418920347063, 'meter_lost', 0, 1, 2, 2000000, 0, 6000, 1500000, 2500000, NULL, 0, 0, 450000, 0, 0, 1500000, 0, 450000, 0, 0, 0, '1:307203;2:375000;3:682203', '', NULL, NULL, 0, 0, 1743418801281875, 0, 5);
INSERT INTO public.attempt VALUES ('883c9d98-df94-413b-9d08-d5f581af3db1', 'silent-1', 'bob', 1743379200, 1743418801272250, 1743418831278638, 0, NULL, NULL, 0, 1, 2, 2000000, 0, 6000, 2000000, 4000000, NULL, 0, 0, 600000, 0, 0, 2000000, 0, 600000, 0, 0, 0, '1:307203;2:600000;3:907203', '1743379200:0:307203', NULL, NULL, 0, 0, 1743418801272250, 0, 9);
INSERT INTO public.attempt VALUES ('0195f094-39d3-76b3-9e73-d76ae90bf7b9', 'april-1', 'ann', 1743465600, 1743498000867494, 1743498030867494, 0, 1743498001215551, 'completed', 1, 0, 2, 2000000, 0, 7000, 259174, 648806, NULL, 0, 0, 77752, 0, 0, 259174, 0, 77752, 0, 0, 0, '1743418920000001:308403', '', NULL, NULL, 0, 0, 1743498000867494, 0, 38);
INSERT INTO public.credit_grant VALUES ('ann', 1, 10000000000, 0, 0, 1745920801, 'prize');
INSERT INTO public.credit_grant VALUES ('ann', 2, 1500000000, 0, 0, 1743400801, 'short');
INSERT INTO public.credit_grant VALUES ('bob', 1, 500000000, 0, 0, NULL, 'for ever');
INSERT INTO public.entry VALUES ('bob', 1, 1743328801131671, 'limit', 1743292800, 1743292800, 1, 2000000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '2.000000000 a day at once: intern', NULL);
INSERT INTO public.entry VALUES ('cat', 1, 1743328801185381, 'limit', 1743292800, 1743292800, 0, 40000000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '40.000000000 a month from the next period on: ', NULL);
INSERT INTO public.entry VALUES ('dan', 1, 1743328801236791, 'limit', 1743292800, 1743292800, 1, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '0.000000000 a day at once: ', NULL);
INSERT INTO public.entry VALUES ('eve', 1, 1743328801285869, 'limit', 1743292800, 1743292800, 1, -1, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'none a day at once: ', NULL);
INSERT INTO public.entry VALUES ('fay', 1, 1743328801342439, 'limit', 1743292800, 1743292800, 1, 300000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '0.000300000 a day at once: ', NULL);
INSERT INTO public.entry VALUES ('ann', 1, 1743328801406098, 'grant', 1743292800, 1743292800, 1, 10000000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'prize', NULL);
INSERT INTO public.entry VALUES ('ann', 2, 1743328801478256, 'grant', 1743292800, 1743292800, 2, 1500000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'short', NULL);
INSERT INTO public.entry VALUES ('bob', 2, 1743328801544479, 'grant', 1743292800, 1743292800, 1, 500000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'for ever', NULL);
INSERT INTO public.entry VALUES ('bob', 3, 1743328801609823, 'adjust', 1743292800, 1743292800, 0, -250000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'mistake', NULL);
INSERT INTO public.entry VALUES ('cat', 2, 1743328801651935, 'adjust', 1743292800, 1743292800, 0, 1000000001, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'given back', NULL);
INSERT INTO public.entry VALUES ('ann', 3, 1743328801760753, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-1', '0195e67e-73b9-742b-9c37-fcd53d9b1721', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 4, 1743328802393129, 'charge', 1743292800, 1743292800, 0, 90192, 90192, 0, 0, 360768, 0, 0, 'train-1', '0195e67e-73b9-742b-9c37-fcd53d9b1721', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 5, 1743328802393129, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-1', '0195e67e-73b9-742b-9c37-fcd53d9b1721', 'meter', 'completed', 4);
INSERT INTO public.entry VALUES ('ann', 6, 1743328802432954, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-2', '0195e67e-766e-739a-ba1d-ad30e155a866', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 7, 1743328802632313, 'charge', 1743292800, 1743292800, 0, 27918, 27918, 0, 0, 111674, 0, 0, 'train-2', '0195e67e-766e-739a-ba1d-ad30e155a866', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 8, 1743328802632313, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-2', '0195e67e-766e-739a-ba1d-ad30e155a866', 'meter', 'completed', 7);
INSERT INTO public.entry VALUES ('ann', 9, 1743328802669110, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-2', '0195e67e-7757-76db-a647-fd4fed5f8e0a', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 10, 1743328802701094, 'charge', 1743292800, 1743292800, 0, 615, 615, 0, 0, 2463, 0, 0, 'train-2', '0195e67e-7757-76db-a647-fd4fed5f8e0a', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 11, 1743328802701094, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-2', '0195e67e-7757-76db-a647-fd4fed5f8e0a', 'meter', 'failed', 10);
INSERT INTO public.entry VALUES ('ann', 12, 1743328802741783, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-2', '0195e67e-779f-7593-9ce3-a6f8e352d859', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 13, 1743328802971208, 'charge', 1743292800, 1743292800, 0, 29221, 29221, 0, 0, 116886, 0, 0, 'train-2', '0195e67e-779f-7593-9ce3-a6f8e352d859', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 14, 1743328802971208, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-2', '0195e67e-779f-7593-9ce3-a6f8e352d859', 'meter', 'completed', 13);
INSERT INTO public.entry VALUES ('eve', 2, 1743328803018617, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'chat-1', '0195e67e-78af-733f-b1b3-42c80bb8015c', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 3, 1743328803061153, 'charge', 1743292800, 1743292800, 0, 669, 669, 0, 0, 2676, 0, 0, 'chat-1', '0195e67e-78af-733f-b1b3-42c80bb8015c', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 4, 1743328803061153, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'chat-1', '0195e67e-78af-733f-b1b3-42c80bb8015c', 'meter', 'signalled', 3);
INSERT INTO public.entry VALUES ('bob', 4, 1743328803108782, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'gen-1', '0195e67e-7902-746c-bb41-dfc6467fde9d', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('bob', 5, 1743328803668343, 'charge', 1743292800, 1743292800, 0, 73378, 73378, 0, 0, 293514, 0, 0, 'gen-1', '0195e67e-7902-746c-bb41-dfc6467fde9d', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('bob', 6, 1743328803868405, 'charge', 1743292800, 1743292800, 0, 23265, 23265, 0, 0, 93061, 0, 0, 'gen-1', '0195e67e-7902-746c-bb41-dfc6467fde9d', 'meter', '', 5);
INSERT INTO public.entry VALUES ('bob', 7, 1743328803880766, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'gen-1', '0195e67e-7902-746c-bb41-dfc6467fde9d', 'meter', 'job_limit', 6);
INSERT INTO public.entry VALUES ('fay', 2, 1743328803944166, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'poor-1', '0195e67e-7c45-7671-8f16-9cf84748e8d0', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('fay', 3, 1743328804916769, 'charge', 1743292800, 1743292800, 0, 113698, 113698, 0, 0, 454795, 0, 0, 'poor-1', '0195e67e-7c45-7671-8f16-9cf84748e8d0', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('fay', 4, 1743328805936525, 'charge', 1743292800, 1743292800, 0, 141441, 141441, 0, 0, 565761, 0, 0, 'poor-1', '0195e67e-7c45-7671-8f16-9cf84748e8d0', 'meter', '', 3);
INSERT INTO public.entry VALUES ('fay', 5, 1743328806234130, 'charge', 1743292800, 1743292800, 0, 41568, 41568, 0, 0, 166272, 0, 0, 'poor-1', '0195e67e-7c45-7671-8f16-9cf84748e8d0', 'meter', '', 4);
INSERT INTO public.entry VALUES ('fay', 6, 1743328806252425, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'poor-1', '0195e67e-7c45-7671-8f16-9cf84748e8d0', 'meter', 'credits_exhausted', 5);
INSERT INTO public.entry VALUES ('dan', 2, 1743328806297518, 'refuse', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'never-1', '0195e67e-8583-777d-b7fb-291189b5bc23', 'ledger', 'credits exhausted', NULL);
INSERT INTO public.entry VALUES ('ann', 15, 1743328806344715, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'lost-1', '0195e67e-85b5-7250-a065-5d9a3b174ca8', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 16, 1743328806373863, 'charge', 1743292800, 1743292800, 0, 416, 416, 0, 0, 1665, 0, 0, 'lost-1', '0195e67e-85b5-7250-a065-5d9a3b174ca8', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 17, 1743328806373863, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'lost-1', '0195e67e-85b5-7250-a065-5d9a3b174ca8', 'meter', 'failed', 16);
INSERT INTO public.entry VALUES ('eve', 5, 1743328806417003, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'gpu-0', '0195e67e-85fc-772f-9132-4c0833eb04f4', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 6, 1743328807404401, 'charge', 1743292800, 1743292800, 0, 634, 634, 0, 0, 2537, 0, 0, 'gpu-0', '0195e67e-85fc-772f-9132-4c0833eb04f4', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 7, 1743328808358627, 'charge', 1743292800, 1743292800, 0, 1888091, 61, 1888030, 0, 245, 755212, 0, 'gpu-0', '0195e67e-85fc-772f-9132-4c0833eb04f4', 'meter', '', 6);
INSERT INTO public.entry VALUES ('eve', 8, 1743328808358627, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'gpu-0', '0195e67e-85fc-772f-9132-4c0833eb04f4', 'meter', 'completed', 7);
INSERT INTO public.entry VALUES ('ann', 18, 1743328808412601, 'tokens', 1743292800, 1743292800, 0, 6000000, 0, 0, 6000000, 0, 0, 1200, 'train-1', NULL, 'root', '', NULL);
INSERT INTO public.entry VALUES ('ann', 19, 1743328808593195, 'reserve', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-1', '0195e67e-8e89-7225-b54f-e5147727e30a', 'root', 'up to 8000 tokens, 0.040000000 credits', NULL);
INSERT INTO public.entry VALUES ('ann', 20, 1743328808654011, 'tokens', 1743292800, 1743292800, 0, 15000000, 0, 0, 15000000, 0, 0, 3000, 'train-1', '0195e67e-8e89-7225-b54f-e5147727e30a', 'root', '', NULL);
INSERT INTO public.entry VALUES ('ann', 21, 1743328808804450, 'reserve', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-1', '0195e67e-8f56-73f0-99fe-0a1d821d8040', 'root', 'up to 5000 tokens, 0.025000000 credits', NULL);
INSERT INTO public.entry VALUES ('fay', 7, 1743328808859115, 'refuse', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'poor-1', NULL, 'root', 'up to 9000000 tokens, 45.000000000 credits', NULL);
INSERT INTO public.entry VALUES ('cat', 3, 1743328808956438, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'stop-1', '0195e67e-8fd2-7795-8820-1fb423fd3bb3', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('cat', 4, 1743328809106276, 'stop', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'stop-1', NULL, 'root', 'wrong data', NULL);
INSERT INTO public.entry VALUES ('cat', 5, 1743328809941594, 'charge', 1743292800, 1743292800, 0, 362, 362, 0, 0, 1448, 0, 0, 'stop-1', '0195e67e-8fd2-7795-8820-1fb423fd3bb3', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('cat', 6, 1743328809960753, 'charge', 1743292800, 1743292800, 0, 4, 4, 0, 0, 16, 0, 0, 'stop-1', '0195e67e-8fd2-7795-8820-1fb423fd3bb3', 'meter', '', 5);
INSERT INTO public.entry VALUES ('cat', 7, 1743328809960753, 'finish', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'stop-1', '0195e67e-8fd2-7795-8820-1fb423fd3bb3', 'meter', 'operator_stop', 6);
INSERT INTO public.entry VALUES ('ann', 22, 1743379198012283, 'expire', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'train-1', '0195e67e-8f56-73f0-99fe-0a1d821d8040', 'ledger', 'up to 5000 tokens', NULL);
INSERT INTO public.entry VALUES ('ann', 23, 1743379198012283, 'open', 1743292800, 1743292800, 0, 0, 0, 0, 0, 0, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 24, 1743379198832242, 'charge', 1743292800, 1743292800, 0, 184813, 184813, 0, 0, 739255, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 25, 1743379199415269, 'charge', 1743292800, 1743292800, 0, 140562, 140562, 0, 0, 562247, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 24);
INSERT INTO public.entry VALUES ('ann', 26, 1743379199707700, 'charge', 1743292800, 1743292800, 0, 47545, 47545, 0, 0, 190179, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 25);
INSERT INTO public.entry VALUES ('ann', 27, 1743379199853950, 'charge', 1743292800, 1743292800, 0, 31874, 31874, 0, 0, 127495, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 26);
INSERT INTO public.entry VALUES ('ann', 28, 1743379199927057, 'charge', 1743292800, 1743292800, 0, 16139, 16139, 0, 0, 64558, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 27);
INSERT INTO public.entry VALUES ('ann', 29, 1743379199963321, 'charge', 1743292800, 1743292800, 0, 7201, 7201, 0, 0, 28802, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 28);
INSERT INTO public.entry VALUES ('ann', 30, 1743379199981501, 'charge', 1743292800, 1743292800, 0, 3501, 3501, 0, 0, 14005, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 29);
INSERT INTO public.entry VALUES ('ann', 31, 1743379199990636, 'charge', 1743292800, 1743292800, 0, 1258, 1258, 0, 0, 5033, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 30);
INSERT INTO public.entry VALUES ('ann', 32, 1743379199995632, 'charge', 1743292800, 1743292800, 0, 1251, 1251, 0, 0, 5002, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 31);
INSERT INTO public.entry VALUES ('ann', 33, 1743379200000884, 'charge', 1743292800, 1743292800, 0, 1160, 1160, 0, 0, 4643, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 32);
INSERT INTO public.entry VALUES ('ann', 34, 1743379203982255, 'charge', 1743379200, 1743379200, 0, 827422, 827422, 0, 0, 3309685, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', '', 33);
INSERT INTO public.entry VALUES ('ann', 35, 1743379203982255, 'finish', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'night-1', '0195e97f-701e-74bd-82c0-88845d4afbe5', 'meter', 'completed', 34);
INSERT INTO public.entry VALUES ('', 1, 1743418801021525, 'rates', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '{"version":2,"cpu_per_second":0.000300000,"gpu_per_second":0.002500000,"per_million_tokens":5.000000000,"cpu_weight_ppm":1000000,"gpu_weight_ppm":1000000,"gpu_weights":[{"pattern":"*MIG 1g.*","weight_ppm":140000},{"pattern":"*H200*","weight_ppm":3000000}],"cpu_basis":"used","gpu_basis":"busy"}', NULL);
INSERT INTO public.entry VALUES ('', 2, 1743418801061665, 'key', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'jobmeter serve', '1ba489de7997 (first admin key), admin', NULL);
INSERT INTO public.entry VALUES ('', 3, 1743418801216345, 'key', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'key 1ba489de7997 (first admin key)', '6324f93c899a (node-7), report', NULL);
INSERT INTO public.entry VALUES ('', 4, 1743418801218916, 'key', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'key 1ba489de7997 (first admin key)', '6263634d7302 (reader), read', NULL);
INSERT INTO public.entry VALUES ('', 5, 1743418801220940, 'key', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'key 1ba489de7997 (first admin key)', '976f48f60342 (ann only), read', NULL);
INSERT INTO public.entry VALUES ('', 6, 1743418801223918, 'key', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'key 1ba489de7997 (first admin key)', '8c59ff324357 (revoked), report', NULL);
INSERT INTO public.entry VALUES ('', 7, 1743418801225846, 'key', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'key 1ba489de7997 (first admin key)', '8c59ff324357 (revoked) revoked', NULL);
INSERT INTO public.entry VALUES ('eve', 9, 1743418801228813, 'open', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'gpu-1', '8419b27a-0a9d-4f93-bd06-619c2c462c31', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 10, 1743418801243678, 'charge', 1743379200, 1743379200, 0, 450000, 450000, 0, 0, 1500000, 0, 0, 'gpu-1', '8419b27a-0a9d-4f93-bd06-619c2c462c31', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 11, 1743418801250120, 'charge', 1743379200, 1743379200, 0, 35062500, 525000, 34537500, 0, 1750000, 13815000, 0, 'gpu-1', '8419b27a-0a9d-4f93-bd06-619c2c462c31', 'meter', '', 10);
INSERT INTO public.entry VALUES ('eve', 12, 1743418801256210, 'charge', 1743379200, 1743379200, 0, 5262500, 262500, 0, 5000000, 875000, 0, 1000, 'gpu-1', '8419b27a-0a9d-4f93-bd06-619c2c462c31', 'meter', '', 11);
INSERT INTO public.entry VALUES ('eve', 13, 1743418801256210, 'finish', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'gpu-1', '8419b27a-0a9d-4f93-bd06-619c2c462c31', 'meter', 'completed', 12);
INSERT INTO public.entry VALUES ('eve', 14, 1743418801260325, 'open', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'gpu-1', '0d423c56-2927-4dbf-8245-8286b90ffa7f', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 15, 1743418801268516, 'charge', 1743379200, 1743379200, 0, 150000, 150000, 0, 0, 500000, 0, 0, 'gpu-1', '0d423c56-2927-4dbf-8245-8286b90ffa7f', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('eve', 16, 1743418801268516, 'finish', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'gpu-1', '0d423c56-2927-4dbf-8245-8286b90ffa7f', 'meter', 'oom', 15);
INSERT INTO public.entry VALUES ('bob', 8, 1743418801272250, 'open', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'silent-1', '883c9d98-df94-413b-9d08-d5f581af3db1', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('bob', 9, 1743418801278638, 'charge', 1743379200, 1743379200, 0, 600000, 600000, 0, 0, 2000000, 0, 0, 'silent-1', '883c9d98-df94-413b-9d08-d5f581af3db1', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('Zoë O''Hara', 1, 1743418801281875, 'open', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'silent-2', '49923294-b860-4c07-b790-5cdb4833790a', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('Zoë O''Hara', 2, 1743418801290370, 'charge', 1743379200, 1743379200, 0, 375000, 375000, 0, 0, 1250000, 0, 0, 'silent-2', '49923294-b860-4c07-b790-5cdb4833790a', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('Zoë O''Hara', 3, 1743418920347063, 'settle', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'silent-2', '49923294-b860-4c07-b790-5cdb4833790a', 'root', 'node-7 burned down', 2);
INSERT INTO public.entry VALUES ('Zoë O''Hara', 4, 1743418920347063, 'charge', 1743379200, 1743379200, 0, 75000, 75000, 0, 0, 250000, 0, 0, 'silent-2', '49923294-b860-4c07-b790-5cdb4833790a', 'meter', '', 3);
INSERT INTO public.entry VALUES ('Zoë O''Hara', 5, 1743418920347063, 'finish', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, 'silent-2', '49923294-b860-4c07-b790-5cdb4833790a', 'meter', 'meter_lost', 4);
INSERT INTO public.entry VALUES ('', 8, 1743418920464125, 'restore', 1743379200, 1743379200, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', 'a drill', NULL);
INSERT INTO public.entry VALUES ('bob', 10, 1743498000810188, 'limit', 1743465600, 1743465600, 1, 3000000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '3.000000000 a day at once: from now on', NULL);
INSERT INTO public.entry VALUES ('ann', 36, 1743498000867494, 'open', 1743465600, 1743465600, 0, 0, 0, 0, 0, 0, 0, 0, 'april-1', '0195f094-39d3-76b3-9e73-d76ae90bf7b9', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 37, 1743498001215551, 'charge', 1743465600, 1743465600, 0, 77752, 77752, 0, 0, 259174, 0, 0, 'april-1', '0195f094-39d3-76b3-9e73-d76ae90bf7b9', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 38, 1743498001215551, 'finish', 1743465600, 1743465600, 0, 0, 0, 0, 0, 0, 0, 0, 'april-1', '0195f094-39d3-76b3-9e73-d76ae90bf7b9', 'meter', 'completed', 37);
INSERT INTO public.entry VALUES ('cat', 8, 1743498001250203, 'limit', 1743465600, 1743465600, 1, 7000000000, 0, 0, 0, 0, 0, 0, NULL, NULL, 'root', '7.000000000 a month at once: from May on', NULL);
INSERT INTO public.entry VALUES ('ann', 39, 1743498001352712, 'open', 1743465600, 1743465600, 0, 0, 0, 0, 0, 0, 0, 0, 'open-1', '4ac1df38-d51a-4620-82c1-386bb122e58a', 'meter', '', NULL);
INSERT INTO public.entry VALUES ('ann', 40, 1743498001398290, 'charge', 1743465600, 1743465600, 0, 225000, 225000, 0, 0, 750000, 0, 0, 'open-1', '4ac1df38-d51a-4620-82c1-386bb122e58a', 'meter', '', NULL);
INSERT INTO public.epoch VALUES (1743418920, 1743418950464125);
INSERT INTO public.identity VALUES ('0195e67e-73b9-742b-9c37-fcd53d9b1721', '{"attempt":"0195e67e-73b9-742b-9c37-fcd53d9b1721","job":"train-1","task":"0","user":"ann","kind":"training","name":"Nightly training","labels":{"model":"llm-7b","team":"search"},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-766e-739a-ba1d-ad30e155a866', '{"attempt":"0195e67e-766e-739a-ba1d-ad30e155a866","job":"train-2","task":"0","user":"ann","kind":"training","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-7757-76db-a647-fd4fed5f8e0a', '{"attempt":"0195e67e-7757-76db-a647-fd4fed5f8e0a","job":"train-2","task":"1","user":"ann","kind":"training","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","sh","-c","exit 3"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-779f-7593-9ce3-a6f8e352d859', '{"attempt":"0195e67e-779f-7593-9ce3-a6f8e352d859","job":"train-2","task":"1","user":"ann","kind":"training","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-78af-733f-b1b3-42c80bb8015c', '{"attempt":"0195e67e-78af-733f-b1b3-42c80bb8015c","job":"chat-1","task":"0","user":"eve","kind":"python-session","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","sh","-c","kill -9 $$"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-7902-746c-bb41-dfc6467fde9d', '{"attempt":"0195e67e-7902-746c-bb41-dfc6467fde9d","job":"gen-1","task":"0","user":"bob","kind":"generation","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 60\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-7c45-7671-8f16-9cf84748e8d0', '{"attempt":"0195e67e-7c45-7671-8f16-9cf84748e8d0","job":"poor-1","task":"0","user":"fay","kind":"training","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 60\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-85b5-7250-a065-5d9a3b174ca8', '{"attempt":"0195e67e-85b5-7250-a065-5d9a3b174ca8","job":"lost-1","task":"0","user":"ann","kind":"training","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","/nowhere/train"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-85fc-772f-9132-4c0833eb04f4', '{"attempt":"0195e67e-85fc-772f-9132-4c0833eb04f4","job":"gpu-0","task":"0","user":"eve","kind":"training","name":null,"labels":{},"command":["env","-u","LD_PRELOAD","sleep","1.5"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e67e-8fd2-7795-8820-1fb423fd3bb3', '{"attempt":"0195e67e-8fd2-7795-8820-1fb423fd3bb3","job":"stop-1","task":"0","user":"cat","kind":"training","name":null,"labels":{},"command":["sleep","60"],"host":"vm"}');
INSERT INTO public.identity VALUES ('0195e97f-701e-74bd-82c0-88845d4afbe5', '{"attempt":"0195e97f-701e-74bd-82c0-88845d4afbe5","job":"night-1","task":"0","user":"ann","kind":"training","name":null,"labels":{"team":"search"},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 5\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('8419b27a-0a9d-4f93-bd06-619c2c462c31', '{"attempt":"8419b27a-0a9d-4f93-bd06-619c2c462c31","job":"gpu-1","task":"0","user":"eve","kind":"training","name":null,"labels":{"gpu":"yes"},"command":["./train","--epochs","3"],"host":"node-7"}');
INSERT INTO public.identity VALUES ('0d423c56-2927-4dbf-8245-8286b90ffa7f', '{"attempt":"0d423c56-2927-4dbf-8245-8286b90ffa7f","job":"gpu-1","task":"1","user":"eve","kind":"training","name":null,"labels":{},"command":["./train","--epochs","3"],"host":"node-7"}');
INSERT INTO public.identity VALUES ('883c9d98-df94-413b-9d08-d5f581af3db1', '{"attempt":"883c9d98-df94-413b-9d08-d5f581af3db1","job":"silent-1","task":"0","user":"bob","kind":"training","name":null,"labels":{},"command":["./train","--epochs","3"],"host":"node-7"}');
INSERT INTO public.identity VALUES ('49923294-b860-4c07-b790-5cdb4833790a', '{"attempt":"49923294-b860-4c07-b790-5cdb4833790a","job":"silent-2","task":"0","user":"Zoë O''Hara","kind":"generation","name":"Größe 7","labels":{},"command":["./train","--epochs","3"],"host":"node-7"}');
INSERT INTO public.identity VALUES ('0195f094-39d3-76b3-9e73-d76ae90bf7b9', '{"attempt":"0195f094-39d3-76b3-9e73-d76ae90bf7b9","job":"april-1","task":"0","user":"ann","kind":"training","name":null,"labels":{"team":"search"},"command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"],"host":"vm"}');
INSERT INTO public.identity VALUES ('4ac1df38-d51a-4620-82c1-386bb122e58a', '{"attempt":"4ac1df38-d51a-4620-82c1-386bb122e58a","job":"open-1","task":"0","user":"ann","kind":"training","name":null,"labels":{},"command":["./train","--epochs","3"],"host":"node-7"}');
INSERT INTO public.job VALUES ('train-2', 'ann', 'training', NULL, NULL, 1743328802432954, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('chat-1', 'eve', 'python-session', NULL, NULL, 1743328803018617, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('gen-1', 'bob', 'generation', NULL, 100000, 1743328803108782, 0, 0, 0, 0, 96643, 0, 0);
INSERT INTO public.job VALUES ('poor-1', 'fay', 'training', NULL, NULL, 1743328803944166, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('never-1', 'dan', 'training', NULL, NULL, 1743328806297518, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('lost-1', 'ann', 'training', NULL, NULL, 1743328806344715, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('gpu-0', 'eve', 'training', NULL, NULL, 1743328806417003, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('train-1', 'ann', 'training', 'Nightly training', NULL, 1743328801760753, 0, 4200, 21000000, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('stop-1', 'cat', 'training', NULL, NULL, 1743328808956438, 1, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('night-1', 'ann', 'training', NULL, NULL, 1743379198012283, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('gpu-1', 'eve', 'training', NULL, NULL, 1743418801228813, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('silent-1', 'bob', 'training', NULL, NULL, 1743418801272250, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('silent-2', 'Zoë O''Hara', 'generation', 'Größe 7', NULL, 1743418801281875, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('april-1', 'ann', 'training', NULL, NULL, 1743498000867494, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.job VALUES ('open-1', 'ann', 'training', NULL, NULL, 1743498001352712, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.jobmeter_place VALUES (1, '7488269477059486210/00000001/16451');
INSERT INTO public.jobmeter_schema VALUES (1);
INSERT INTO public.jobmeter_schema VALUES (2);
INSERT INTO public.jobmeter_schema VALUES (3);
INSERT INTO public.jobmeter_schema VALUES (4);
INSERT INTO public.jobmeter_schema VALUES (5);
INSERT INTO public.once VALUES ('0195e67e-7275-74a4-8331-1a09022fe877', '{"grant":{"amount":10.000000000,"by":"root","expires_at":1745920801,"key":"0195e67e-7275-74a4-8331-1a09022fe877","user":"ann","why":"prize"}}', '{"again":false,"balance":{"left":15.000000000,"limit":15.000000000},"charged":0.000000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('g-1', '{"grant":{"amount":1.500000000,"by":"root","expires_at":1743400801,"key":"g-1","user":"ann","why":"short"}}', '{"again":false,"balance":{"left":16.500000000,"limit":16.500000000},"charged":0.000000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('0195e67e-72eb-76c1-b27c-0ce7e8ae43d8', '{"grant":{"amount":0.500000000,"by":"root","expires_at":null,"key":"0195e67e-72eb-76c1-b27c-0ce7e8ae43d8","user":"bob","why":"for ever"}}', '{"again":false,"balance":{"left":2.500000000,"limit":2.500000000},"charged":0.000000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('0195e67e-732e-705d-ac03-ba62cf0d803e', '{"adjust":{"amount":-0.250000000,"by":"root","key":"0195e67e-732e-705d-ac03-ba62cf0d803e","user":"bob","why":"mistake"}}', '{"again":false,"balance":{"left":2.250000000,"limit":2.250000000},"charged":0.000000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('a-1', '{"adjust":{"amount":1.000000001,"by":"root","key":"a-1","user":"cat","why":"given back"}}', '{"again":false,"balance":{"left":6.000000001,"limit":6.000000001},"charged":0.000000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('turn-1', '{"charge_tokens":{"by":"root","count":1200,"job":"train-1","key":"turn-1"}}', '{"again":false,"balance":{"left":16.493851638,"limit":16.500000000},"charged":0.006000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('turn-2', '{"reserve_tokens":{"by":"root","count":8000,"job":"train-1","key":"turn-2","lasts_ms":300000,"new_id":"0195e67e-8e89-7225-b54f-e5147727e30a"}}', '{"again":false,"balance":{"left":16.493851638,"limit":16.500000000},"charged":0.000000000,"overshoot":0.000000000,"reserved":{"reservation":"0195e67e-8e89-7225-b54f-e5147727e30a","held":0.040000000,"lasts_ms":300000}}');
INSERT INTO public.once VALUES ('turn-2-end', '{"settle_tokens":{"by":"root","count":3000,"job":"train-1","key":"turn-2-end","reservation":"0195e67e-8e89-7225-b54f-e5147727e30a"}}', '{"again":false,"balance":{"left":16.478851638,"limit":16.500000000},"charged":0.015000000,"overshoot":0.000000000}');
INSERT INTO public.once VALUES ('turn-3', '{"reserve_tokens":{"by":"root","count":5000,"job":"train-1","key":"turn-3","lasts_ms":60000,"new_id":"0195e67e-8f56-73f0-99fe-0a1d821d8040"}}', '{"again":false,"balance":{"left":16.478851638,"limit":16.500000000},"charged":0.000000000,"overshoot":0.000000000,"reserved":{"reservation":"0195e67e-8f56-73f0-99fe-0a1d821d8040","held":0.025000000,"lasts_ms":60000}}');
INSERT INTO public.period VALUES ('dan', 1743292800, 1743379200, 0, 0, 0, 0, 100);
INSERT INTO public.period VALUES ('ann', 1743292800, 1743379200, 5000000000, 0, 21583666, 0, 0);
INSERT INTO public.period VALUES ('ann', 1743379200, 1743465600, 5000000000, 0, 827422, 0, 0);
INSERT INTO public.period VALUES ('eve', 1743379200, 1743465600, NULL, 0, 40925000, 0, 0);
INSERT INTO public.period VALUES ('bob', 1743292800, 1743379200, 2000000000, -250000000, 96643, 0, 0);
INSERT INTO public.period VALUES ('bob', 1743379200, 1743465600, 2000000000, 0, 600000, 307203, 0);
INSERT INTO public.period VALUES ('Zoë O''Hara', 1743379200, 1743465600, 5000000000, 0, 450000, 0, 0);
INSERT INTO public.period VALUES ('fay', 1743292800, 1743379200, 300000, 0, 296707, 0, 100);
INSERT INTO public.period VALUES ('fay', 1743379200, 1743465600, 300000, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('cat', 1743379200, 1743465600, 40000000000, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('bob', 1743465600, 1743552000, 3000000000, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('eve', 1743292800, 1743379200, NULL, 0, 1889394, 0, 0);
INSERT INTO public.period VALUES ('cat', 1743465600, 1746057600, 7000000000, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('ann', 1743465600, 1743552000, 5000000000, 0, 302752, 307203, 0);
INSERT INTO public.period VALUES ('dan', 1743465600, 1743552000, 0, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('eve', 1743465600, 1743552000, NULL, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('cat', 1743292800, 1743379200, 5000000000, 1000000001, 366, 0, 0);
INSERT INTO public.period VALUES ('fay', 1743465600, 1743552000, 300000, 0, 0, 0, 0);
INSERT INTO public.period VALUES ('Zoë O''Hara', 1743465600, 1743552000, 5000000000, 0, 0, 0, 0);
INSERT INTO public.rates VALUES (1, '{"version":1,"cpu_per_second":0.000250000,"gpu_per_second":0.002500000,"per_million_tokens":5.000000000,"cpu_weight_ppm":1000000,"gpu_weight_ppm":1000000,"cpu_basis":"used","gpu_basis":"busy"}', 0, 'jobmeter');
INSERT INTO public.rates VALUES (2, '{"version":2,"cpu_per_second":0.000300000,"gpu_per_second":0.002500000,"per_million_tokens":5.000000000,"cpu_weight_ppm":1000000,"gpu_weight_ppm":1000000,"gpu_weights":[{"pattern":"*MIG 1g.*","weight_ppm":140000},{"pattern":"*H200*","weight_ppm":3000000}],"cpu_basis":"used","gpu_basis":"busy"}', 1743418801021525, 'root');
INSERT INTO public.receipt VALUES ('0195e67e-73b9-742b-9c37-fcd53d9b1721', '{"cpu":{"allocated_seconds":1.175788,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.222413,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.229553,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.360768,"user_seconds":0.131215},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-73b9-742b-9c37-fcd53d9b1721","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"],"host":"vm","id":"train-1","kind":"training","labels":{"model":"llm-7b","team":"search"},"name":"Nightly training","task":"0","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.012838,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.047760},"readings":4,"reports":1,"wake_lateness_max_seconds":0.000079},"outcome":{"degraded":[],"exit_code":0,"reason":"completed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:02.392573Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:01.722005Z","wall_seconds":0.670245},"tokens":0,"virtual":{"cpu_seconds":0.360768,"gpu_seconds":0.000000,"total_seconds":0.360768}}');
INSERT INTO public.receipt VALUES ('0195e67e-766e-739a-ba1d-ad30e155a866', '{"cpu":{"allocated_seconds":0.352180,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.063551,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.057646,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.111674,"user_seconds":0.054027},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-766e-739a-ba1d-ad30e155a866","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"],"host":"vm","id":"train-2","kind":"training","labels":{},"name":null,"task":"0","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.011084,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.033056},"readings":3,"reports":1,"wake_lateness_max_seconds":0.000000},"outcome":{"degraded":[],"exit_code":0,"reason":"completed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:02.630356Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:02.414258Z","wall_seconds":0.215838},"tokens":0,"virtual":{"cpu_seconds":0.111674,"gpu_seconds":0.000000,"total_seconds":0.111674}}');
INSERT INTO public.receipt VALUES ('0195e67e-7757-76db-a647-fd4fed5f8e0a', '{"cpu":{"allocated_seconds":0.013942,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.000000,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.000000,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.002463,"user_seconds":0.002463},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-7757-76db-a647-fd4fed5f8e0a","command":["env","-u","LD_PRELOAD","sh","-c","exit 3"],"host":"vm","id":"train-2","kind":"training","labels":{},"name":null,"task":"1","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.012752,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.029614},"readings":3,"reports":1,"wake_lateness_max_seconds":0.000000},"outcome":{"degraded":[],"exit_code":3,"reason":"failed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:02.700525Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:02.64726Z","wall_seconds":0.053002},"tokens":0,"virtual":{"cpu_seconds":0.002463,"gpu_seconds":0.000000,"total_seconds":0.002463}}');
INSERT INTO public.receipt VALUES ('0195e67e-779f-7593-9ce3-a6f8e352d859', '{"cpu":{"allocated_seconds":0.396604,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.088603,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.070828,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.116886,"user_seconds":0.046058},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-779f-7593-9ce3-a6f8e352d859","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass"],"host":"vm","id":"train-2","kind":"training","labels":{},"name":null,"task":"1","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.012517,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.037764},"readings":3,"reports":1,"wake_lateness_max_seconds":0.000000},"outcome":{"degraded":[],"exit_code":0,"reason":"completed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:02.970669Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:02.719908Z","wall_seconds":0.250483},"tokens":0,"virtual":{"cpu_seconds":0.116886,"gpu_seconds":0.000000,"total_seconds":0.116886}}');
INSERT INTO public.receipt VALUES ('0195e67e-78af-733f-b1b3-42c80bb8015c', '{"cpu":{"allocated_seconds":0.024508,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.000000,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.000000,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.002676,"user_seconds":0.002676},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-78af-733f-b1b3-42c80bb8015c","command":["env","-u","LD_PRELOAD","sh","-c","kill -9 $$"],"host":"vm","id":"chat-1","kind":"python-session","labels":{},"name":null,"task":"0","user":"eve"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.012119,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.045657},"readings":3,"reports":1,"wake_lateness_max_seconds":0.000000},"outcome":{"degraded":[],"exit_code":null,"reason":"signalled","signal":9,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:03.060618Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:02.991107Z","wall_seconds":0.069243},"tokens":0,"virtual":{"cpu_seconds":0.002676,"gpu_seconds":0.000000,"total_seconds":0.002676}}');
INSERT INTO public.receipt VALUES ('0195e67e-7902-746c-bb41-dfc6467fde9d', '{"cpu":{"allocated_seconds":1.436954,"busiest":[{"command":"python3","cpu_seconds":0.380000,"pid":4893}],"error_bound_seconds":0.000001,"pressure_seconds":0.335749,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.263749,"teardown_seconds":0.001412,"throttled_seconds":null,"total_seconds":0.386575,"user_seconds":0.122826},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-7902-746c-bb41-dfc6467fde9d","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 60\nwhile time.process_time() < end: pass"],"host":"vm","id":"gen-1","kind":"generation","labels":{},"name":null,"task":"0","user":"bob"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.016360,"ledger_answers":{"below_ms":{"100":1,"20":1,"5":1},"max_seconds":0.054876},"readings":35,"reports":3,"wake_lateness_max_seconds":0.000089},"outcome":{"degraded":[],"exit_code":null,"reason":"job_limit","signal":9,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:03.880131Z","frozen_seconds":0.008073,"held_seconds":0.007808,"notice_sent_at":null,"started_at":"2025-03-30T10:00:03.074884Z","wall_seconds":0.796394},"tokens":0,"virtual":{"cpu_seconds":0.386575,"gpu_seconds":0.000000,"total_seconds":0.386575}}');
INSERT INTO public.receipt VALUES ('0195e67e-7c45-7671-8f16-9cf84748e8d0', '{"cpu":{"allocated_seconds":4.535630,"busiest":[{"command":"python3","cpu_seconds":1.180000,"pid":4956}],"error_bound_seconds":0.000001,"pressure_seconds":0.643915,"source":"cgroup2","steal_seconds":0.010000,"system_seconds":0.800935,"teardown_seconds":0.001858,"throttled_seconds":null,"total_seconds":1.186828,"user_seconds":0.385892},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-7c45-7671-8f16-9cf84748e8d0","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 60\nwhile time.process_time() < end: pass"],"host":"vm","id":"poor-1","kind":"training","labels":{},"name":null,"task":"0","user":"fay"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.022347,"ledger_answers":{"below_ms":{"100":1,"20":1,"5":1,"50":1},"max_seconds":0.053099},"readings":26,"reports":4,"wake_lateness_max_seconds":0.000098},"outcome":{"degraded":[],"exit_code":null,"reason":"credits_exhausted","signal":9,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:06.248133Z","frozen_seconds":0.005200,"held_seconds":0.005007,"notice_sent_at":null,"started_at":"2025-03-30T10:00:03.909107Z","wall_seconds":2.329446},"tokens":0,"virtual":{"cpu_seconds":1.186828,"gpu_seconds":0.000000,"total_seconds":1.186828}}');
INSERT INTO public.receipt VALUES ('0195e67e-85b5-7250-a065-5d9a3b174ca8', '{"cpu":{"allocated_seconds":0.001708,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.005903,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.000000,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.001665,"user_seconds":0.001665},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-85b5-7250-a065-5d9a3b174ca8","command":["env","-u","LD_PRELOAD","/nowhere/train"],"host":"vm","id":"lost-1","kind":"training","labels":{},"name":null,"task":"0","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.011345,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.032841},"readings":3,"reports":1,"wake_lateness_max_seconds":0.000000},"outcome":{"degraded":[],"exit_code":127,"reason":"failed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:06.373392Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:06.325389Z","wall_seconds":0.047754},"tokens":0,"virtual":{"cpu_seconds":0.001665,"gpu_seconds":0.000000,"total_seconds":0.001665}}');
INSERT INTO public.receipt VALUES ('0195e67e-85fc-772f-9132-4c0833eb04f4', '{"cpu":{"allocated_seconds":3.020848,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.000000,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.002276,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.002782,"user_seconds":0.000505},"credits":null,"gpu":{"allocated_seconds":1.510424,"busy_seconds":0.755212,"declared_by":"--gpus","devices":[{"allocated_seconds":1.510424,"busy_seconds":0.755212,"declared":true,"energy_millijoules":781680,"error_bound_seconds":0.683104,"estimated_seconds":0.000000,"memory_peak_bytes":3221225472,"mode":"exclusive","name":"NVIDIA H200","unattributed_seconds":0.000000,"utilization":{"column_seconds":1.000000,"percent":[47,27]},"uuid":"GPU-8932f937-d72c-4106-c12f-20bd9faed9f6","weight":1.000000}],"driver":"570.124.06","error_bound_seconds":0.683104,"readings":4,"source":"nvml","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-85fc-772f-9132-4c0833eb04f4","command":["env","-u","LD_PRELOAD","sleep","1.5"],"host":"vm","id":"gpu-0","kind":"training","labels":{},"name":null,"task":"0","user":"eve"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.022667,"ledger_answers":{"below_ms":{"5":1,"50":1},"max_seconds":0.041995},"readings":5,"reports":2,"wake_lateness_max_seconds":0.000060},"outcome":{"degraded":[],"exit_code":0,"reason":"completed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:08.357671Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:06.396678Z","wall_seconds":1.560048},"tokens":0,"virtual":{"cpu_seconds":0.002782,"gpu_seconds":0.755212,"total_seconds":0.757994}}');
INSERT INTO public.receipt VALUES ('0195e67e-8fd2-7795-8820-1fb423fd3bb3', '{"cpu":{"allocated_seconds":1.920550,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.000000,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.000000,"teardown_seconds":0.000232,"throttled_seconds":null,"total_seconds":0.001464,"user_seconds":0.001464},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e67e-8fd2-7795-8820-1fb423fd3bb3","command":["sleep","60"],"host":"vm","id":"stop-1","kind":"training","labels":{},"name":null,"task":"0","user":"cat"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.021477,"ledger_answers":{"below_ms":{"10":1,"50":1},"max_seconds":0.046240},"readings":5,"reports":2,"wake_lateness_max_seconds":0.000062},"outcome":{"degraded":[],"exit_code":null,"reason":"operator_stop","signal":9,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-30T10:00:09.960154Z","frozen_seconds":0.000355,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T10:00:08.914712Z","wall_seconds":1.031546},"tokens":0,"virtual":{"cpu_seconds":0.001464,"gpu_seconds":0.000000,"total_seconds":0.001464}}');
INSERT INTO public.receipt VALUES ('0195e97f-701e-74bd-82c0-88845d4afbe5', '{"cpu":{"allocated_seconds":11.864474,"busiest":[{"command":"python3","cpu_seconds":4.240000,"pid":5535}],"error_bound_seconds":0.000001,"pressure_seconds":0.778085,"source":"cgroup2","steal_seconds":0.020000,"system_seconds":3.888967,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":5.050904,"user_seconds":1.161936},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195e97f-701e-74bd-82c0-88845d4afbe5","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 5\nwhile time.process_time() < end: pass"],"host":"vm","id":"night-1","kind":"training","labels":{"team":"search"},"name":null,"task":"0","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.034046,"ledger_answers":{"below_ms":{"10":3,"100":1,"20":1,"5":6},"max_seconds":0.052415},"readings":27,"reports":11,"wake_lateness_max_seconds":0.000248},"outcome":{"degraded":[],"exit_code":0,"reason":"completed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-03-31T00:00:03.981763Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-03-30T23:59:57.982761Z","wall_seconds":5.998741},"tokens":0,"virtual":{"cpu_seconds":5.050904,"gpu_seconds":0.000000,"total_seconds":5.050904}}');
INSERT INTO public.receipt VALUES ('8419b27a-0a9d-4f93-bd06-619c2c462c31', '{}');
INSERT INTO public.receipt VALUES ('0d423c56-2927-4dbf-8245-8286b90ffa7f', '{}');
INSERT INTO public.receipt VALUES ('0195f094-39d3-76b3-9e73-d76ae90bf7b9', '{"cpu":{"allocated_seconds":0.648806,"busiest":[],"error_bound_seconds":0.000001,"pressure_seconds":0.064040,"source":"cgroup2","steal_seconds":0.000000,"system_seconds":0.151462,"teardown_seconds":0.000000,"throttled_seconds":null,"total_seconds":0.259174,"user_seconds":0.107711},"credits":null,"gpu":{"allocated_seconds":0.000000,"busy_seconds":0.000000,"devices":[],"error_bound_seconds":null,"readings":0,"source":"none","unattributed_seconds":0.000000},"io":{"read_bytes":null,"written_bytes":null},"job":{"attempt":"0195f094-39d3-76b3-9e73-d76ae90bf7b9","command":["env","-u","LD_PRELOAD","python3","-c","import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"],"host":"vm","id":"april-1","kind":"training","labels":{"team":"search"},"name":null,"task":"0","user":"ann"},"memory":{"oom_kills":null,"peak_bytes":null},"meter":{"cpu_seconds":0.012881,"ledger_answers":{"below_ms":{"50":1},"max_seconds":0.034953},"readings":3,"reports":1,"wake_lateness_max_seconds":0.000000},"outcome":{"degraded":[],"exit_code":0,"reason":"completed","signal":null,"tamper":"possible"},"schema":"jobmeter.receipt/1","time":{"ended_at":"2025-04-01T09:00:01.21494Z","frozen_seconds":0.000000,"held_seconds":0.000000,"notice_sent_at":null,"started_at":"2025-04-01T09:00:00.8511Z","wall_seconds":0.363460},"tokens":0,"virtual":{"cpu_seconds":0.259174,"gpu_seconds":0.000000,"total_seconds":0.259174}}');
INSERT INTO public.reservation VALUES ('0195e67e-8e89-7225-b54f-e5147727e30a', 'train-1', 'ann', 8000, 1, 1743329108593195, '', 0, 1743328808654011, 3000);
INSERT INTO public.reservation VALUES ('0195e67e-8f56-73f0-99fe-0a1d821d8040', 'train-1', 'ann', 5000, 1, 1743328868804450, '', 0, NULL, 0);
INSERT INTO public.usage_day VALUES ('bob', 1743292800, 96643, 96643, 0, 0, 386575, 0, 0);
INSERT INTO public.usage_day VALUES ('fay', 1743292800, 296707, 296707, 0, 0, 1186828, 0, 0);
INSERT INTO public.usage_day VALUES ('eve', 1743292800, 1889394, 1364, 1888030, 0, 5458, 755212, 0);
INSERT INTO public.usage_day VALUES ('cat', 1743292800, 366, 366, 0, 0, 1464, 0, 0);
INSERT INTO public.usage_day VALUES ('ann', 1743292800, 21583666, 583666, 0, 21000000, 2334675, 0, 4200);
INSERT INTO public.usage_day VALUES ('ann', 1743379200, 827422, 827422, 0, 0, 3309685, 0, 0);
INSERT INTO public.usage_day VALUES ('eve', 1743379200, 40925000, 1387500, 34537500, 5000000, 4625000, 13815000, 1000);
INSERT INTO public.usage_day VALUES ('bob', 1743379200, 600000, 600000, 0, 0, 2000000, 0, 0);
INSERT INTO public.usage_day VALUES ('Zoë O''Hara', 1743379200, 450000, 450000, 0, 0, 1500000, 0, 0);
INSERT INTO public.usage_day VALUES ('ann', 1743465600, 302752, 302752, 0, 0, 1009174, 0, 0);
ALTER TABLE ONLY public.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (owner);
ALTER TABLE ONLY public.alert
    ADD CONSTRAINT alert_pkey PRIMARY KEY (owner, period, percent, at_us);
ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.credit_grant
    ADD CONSTRAINT credit_grant_pkey PRIMARY KEY (owner, id);
ALTER TABLE ONLY public.entry
    ADD CONSTRAINT entry_pkey PRIMARY KEY (owner, number);
ALTER TABLE ONLY public.epoch
    ADD CONSTRAINT epoch_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (attempt);
ALTER TABLE ONLY public.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.jobmeter_place
    ADD CONSTRAINT jobmeter_place_pkey PRIMARY KEY (one);
ALTER TABLE ONLY public.jobmeter_schema
    ADD CONSTRAINT jobmeter_schema_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.once
    ADD CONSTRAINT once_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.period
    ADD CONSTRAINT period_pkey PRIMARY KEY (owner, start);
ALTER TABLE ONLY public.rates
    ADD CONSTRAINT rates_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.receipt
    ADD CONSTRAINT receipt_pkey PRIMARY KEY (attempt);
ALTER TABLE ONLY public.reservation
    ADD CONSTRAINT reservation_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.usage_day
    ADD CONSTRAINT usage_day_pkey PRIMARY KEY (owner, day);
CREATE INDEX alert_unsent ON public.alert USING btree (next_try_us) WHERE (sent_us IS NULL);
CREATE INDEX attempt_of_job ON public.attempt USING btree (job);
CREATE INDEX attempt_unended ON public.attempt USING btree (owner, period) WHERE (ended_us IS NULL);
CREATE INDEX entry_unchained ON public.entry USING btree (job) WHERE ((job IS NOT NULL) AND (previous IS NULL));
CREATE INDEX job_of_owner ON public.job USING btree (owner, started_us, id);
CREATE INDEX job_started ON public.job USING btree (started_us, id);
CREATE INDEX reservation_open ON public.reservation USING btree (owner, until_us) WHERE (open = 1);
CREATE INDEX usage_day_of_all ON public.usage_day USING btree (day);
CREATE TRIGGER attempt_revises AFTER INSERT OR UPDATE ON public.attempt FOR EACH ROW WHEN ((current_setting('jobmeter.revises'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.account_is_revised();
CREATE TRIGGER entry_append_only BEFORE DELETE OR UPDATE ON public.entry FOR EACH ROW EXECUTE FUNCTION public.entries_are_append_only();
CREATE TRIGGER job_revises AFTER INSERT OR UPDATE ON public.job FOR EACH ROW WHEN ((current_setting('jobmeter.revises'::text, true) IS DISTINCT FROM 'on'::text)) EXECUTE FUNCTION public.account_is_revised();
