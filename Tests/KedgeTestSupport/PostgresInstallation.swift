// Which PostgreSQL versions are here, and where their programs are.
import Glibc
import KedgeCore

/// One installed PostgreSQL version.
package struct PostgresInstallation: Sendable, Hashable, CustomStringConvertible {
    /// The major version: 13 to 18.
    package let version: Int
    package let binDirectory: String

    /// All versions that KEDGE_TEST_POSTGRES names ("15=DIRECTORY", separated by commas, spaces or newlines), else
    /// Debian's 15.
    package static let all: [PostgresInstallation] = {
        let variable = getenv("KEDGE_TEST_POSTGRES").map { String(cString: $0) } ?? "15=/usr/lib/postgresql/15/bin"
        return variable.split { ", \n\t".contains($0) }.compactMap { entry in
            let parts = entry.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, let version = Int(parts[0]) else { return nil }
            return PostgresInstallation(version: version, binDirectory: String(parts[1]))
        }
    }()

    /// The version for tests that need just one: 15 if it is there.
    package static var standard: PostgresInstallation {
        all.first { $0.version == 15 } ?? all.first
            ?? PostgresInstallation(version: 15, binDirectory: "/usr/lib/postgresql/15/bin")
    }

    /// Whether tests with real servers were asked for: `KEDGE_TEST_SERVERS=1`, as `scripts/test.sh` sets it.
    package static let serversAreEnabled = getenv("KEDGE_TEST_SERVERS").map { String(cString: $0) } == "1"

    /// Whether the long tests were asked for: `KEDGE_TEST_SOAK=1`, as `scripts/test.sh --soak` sets it.
    package static let soakIsEnabled = getenv("KEDGE_TEST_SOAK").map { String(cString: $0) } == "1"

    /// The path of a program such as `pg_waldump`: this version's own, or that of Debian's 15 where it came without.
    /// psql and pg_verifybackup of 15 work with all; pg_waldump, pg_controldata and pg_checksums fit one version only.
    package func program(_ name: String) -> String {
        let own = binDirectory + "/" + name
        return access(own, X_OK) == 0 ? own : "/usr/lib/postgresql/15/bin/" + name
    }

    /// Whether this version came with the program.
    package func has(_ name: String) -> Bool { access(binDirectory + "/" + name, X_OK) == 0 }

    package var description: String { "PostgreSQL \(version)" }
}
