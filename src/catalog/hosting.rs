//! Who runs a server, since that decides how it is set up: whoever runs servers for others has neither `ALTER SYSTEM` nor a superuser to give away.

use postgres_protocol::escape::escape_identifier;

use super::Catalog;
use crate::failure::Failure;

/// Who runs a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosting {
    /// Its own administrator.
    Own,
    /// Amazon RDS or Aurora.
    AmazonRds,
    /// Google Cloud SQL.
    CloudSql,
    /// Azure Database for PostgreSQL.
    Azure,
}

/// A value of a setting that is to be set.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// The setting.
    pub name: &'static str,
    /// As `ALTER SYSTEM` takes it.
    pub value: &'static str,
    /// The same in the setting's own unit, which is what consoles take.
    pub raw: &'static str,
    /// Whether the server has to be restarted for it.
    pub takes_restart: bool,
}

/// The log that changes are decoded from.
pub const LOGICAL: Wish = Wish { name: "wal_level", value: "logical", raw: "logical", takes_restart: true };

impl Hosting {
    /// By the name of the host, where the server itself does not answer.
    pub fn of_host(host: &str) -> Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_in = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        if is_in("rds.amazonaws.com") || is_in("rds.amazonaws.com.cn") {
            Self::AmazonRds
        } else if is_in("postgres.database.azure.com") || is_in("postgres.database.chinacloudapi.cn") {
            Self::Azure
        } else if is_in("sql.goog") {
            Self::CloudSql
        } else {
            Self::Own
        }
    }

    /// How a setting is changed, ready to be run.
    pub fn set(self, wish: &Wish) -> String {
        let Wish { name, value, raw, takes_restart } = wish;
        // These two have a switch of their own in the place of the setting.
        let (name_there, raw) = match (self, *name) {
            (Self::AmazonRds, "wal_level") => ("rds.logical_replication", "1"),
            (Self::CloudSql, "wal_level") => ("cloudsql.logical_decoding", "on"),
            _ => (*name, *raw),
        };
        match (self, *takes_restart) {
            (Self::Own, true) => format!("ALTER SYSTEM SET {name} = '{value}', and restart the server"),
            (Self::Own, false) => format!("ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf();"),
            (Self::AmazonRds, _) => {
                let (method, then) =
                    if *takes_restart { ("pending-reboot", ", and reboot the instance") } else { ("immediate", "") };
                format!(
                    "aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters \
                     ParameterName={name_there},ParameterValue={raw},ApplyMethod={method} (of Aurora: modify-db-cluster-parameter-group \
                     --db-cluster-parameter-group-name GROUP){then}"
                )
            }
            // The command takes away the flags that it does not name.
            (Self::CloudSql, _) => format!(
                "gcloud sql instances patch INSTANCE --database-flags={name_there}={raw}, with all flags that are set already behind a comma{}",
                if *takes_restart { "; it restarts the instance" } else { "" }
            ),
            (Self::Azure, _) => format!(
                "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name {name_there} --value {raw}{}",
                if *takes_restart {
                    ", and az postgres flexible-server restart --resource-group GROUP --name SERVER"
                } else {
                    ""
                }
            ),
        }
    }

    /// The statement that lets a role replicate.
    pub fn let_replicate(self, role: &str) -> String {
        let role = escape_identifier(role);
        match self {
            Self::AmazonRds => format!("GRANT rds_replication TO {role}"),
            Self::Own | Self::CloudSql | Self::Azure => format!("ALTER ROLE {role} REPLICATION"),
        }
    }

    /// Who may run statements that others may not.
    pub fn administrator(self) -> &'static str {
        match self {
            Self::Own => "a superuser",
            Self::AmazonRds => "a member of rds_superuser",
            Self::CloudSql => "a member of cloudsqlsuperuser",
            Self::Azure => "a member of azure_pg_admin",
        }
    }
}

impl Catalog {
    /// Who runs the server, by settings and roles that only they have.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn hosting(&mut self) -> Result<Hosting, Failure> {
        // Each has some that cannot be set to nothing. A setting that is not there is null, and so in a view it would not be.
        let row = self
            .query_one(
                "SELECT coalesce(current_setting('rds.logical_replication', true), current_setting('rds.extensions', true)) IS NOT NULL
                            OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser'),
                        coalesce(current_setting('cloudsql.logical_decoding', true), current_setting('cloudsql.iam_authentication', true)) IS NOT NULL
                            OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloudsqlsuperuser'),
                        coalesce(current_setting('azure.extensions', true), current_setting('azure.accepted_password_auth_method', true)) IS NOT NULL
                            OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'azure_pg_admin')",
                &[],
            )
            .await?;
        Ok(match (row.get(0), row.get(1), row.get(2)) {
            (true, _, _) => Hosting::AmazonRds,
            (_, true, _) => Hosting::CloudSql,
            (_, _, true) => Hosting::Azure,
            (false, false, false) => Hosting::Own,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_whose_it_is_where_nobody_else_does() {
        for (host, hosting) in [
            ("db.internal", Hosting::Own),
            ("localhost", Hosting::Own),
            ("shop.abc123.eu-central-1.rds.amazonaws.com", Hosting::AmazonRds),
            ("SHOP.cluster-abc.cn-north-1.rds.amazonaws.com.cn.", Hosting::AmazonRds),
            ("shop.postgres.database.azure.com", Hosting::Azure),
            ("abc.def.europe-west3.sql.goog", Hosting::CloudSql),
            ("rds.amazonaws.com", Hosting::Own),
            ("notrds.amazonaws.com.example.com", Hosting::Own),
        ] {
            assert_eq!(Hosting::of_host(host), hosting, "{host}");
        }
    }

    #[test]
    fn each_has_its_own_way_and_its_own_unit() {
        let keep = Wish { name: "max_slot_wal_keep_size", value: "50GB", raw: "51200", takes_restart: false };
        for (hosting, logical, kept) in [
            (
                Hosting::Own,
                "ALTER SYSTEM SET wal_level = 'logical', and restart",
                "SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
            ),
            (
                Hosting::AmazonRds,
                "ParameterName=rds.logical_replication,ParameterValue=1,ApplyMethod=pending-reboot",
                "ParameterName=max_slot_wal_keep_size,ParameterValue=51200,ApplyMethod=immediate",
            ),
            (Hosting::CloudSql, "--database-flags=cloudsql.logical_decoding=on", "=max_slot_wal_keep_size=51200"),
            (Hosting::Azure, "--name wal_level --value logical, and az", "--name max_slot_wal_keep_size --value 51200"),
        ] {
            assert!(hosting.set(&LOGICAL).contains(logical), "{}", hosting.set(&LOGICAL));
            assert!(hosting.set(&keep).contains(kept), "{}", hosting.set(&keep));
        }
        assert_eq!(Hosting::AmazonRds.let_replicate("cdc"), "GRANT rds_replication TO \"cdc\"");
        assert_eq!(Hosting::CloudSql.let_replicate("cdc"), "ALTER ROLE \"cdc\" REPLICATION");
    }
}
