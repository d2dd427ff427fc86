-- The role with which Grafana reads the numbers and nothing else (docs/roles.md). Can run again.
\set ON_ERROR_STOP on
\getenv password READER_PASSWORD
SELECT 'CREATE ROLE reader LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'reader') \gexec
ALTER ROLE reader PASSWORD :'password';
ALTER ROLE reader SET statement_timeout = '30s';
GRANT SELECT ON chancy_metrics_points, chancy_metrics_points_1min, chancy_metrics_points_5min,
    chancy_metrics_points_1hour, chancy_metrics_points_1day, chancy_metrics_keys, chancy_metrics_resolutions,
    chancy_metrics_marks, chancy_metrics_pipeline TO reader;
GRANT EXECUTE ON FUNCTION chancy_metrics_resolution_for TO reader;
