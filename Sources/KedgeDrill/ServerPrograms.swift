// PostgreSQL's programs on this host: found, and checked before anything is fetched.

import Glibc
package import KedgeCore

/// The programs of one installation.
package struct ServerPrograms: Sendable {
    /// Where they are.
    package let directory: RawPath
    /// What `postgres --version` says, such as `15.14`.
    package let version: String
    /// Where the server looks for libraries and for extensions; nil where that could not be found out.
    package let libraryDirectory: RawPath?
    package let shareDirectory: RawPath?

    package var majorVersion: Int { Int(version.prefix { $0.isNumber }) ?? 0 }
    package var server: RawPath { directory.appending("postgres") }
    package var dump: RawPath { directory.appending("pg_dump") }
    package var hasDump: Bool { ServerPrograms.isExecutable(dump) }

    /// Finds those of `majorVersion`: in `configured`, or where Debian and Red Hat put them.
    ///
    /// Throws `configuration` where they are not there or of another version.
    package static func find(
        majorVersion: Int, configured: RawPath?, interruption: Interruption
    ) throws(KedgeError) -> ServerPrograms {
        let usual = ["/usr/lib/postgresql/\(majorVersion)/bin", "/usr/pgsql-\(majorVersion)/bin"].map { RawPath($0) }
        guard
            let directory = (configured.map { [$0] } ?? usual).first(where: { isExecutable($0.appending("postgres")) })
        else { throw missing(majorVersion, configured, usual) }
        let version = try versionText(directory.appending("postgres"), interruption)
        let programs = ServerPrograms(
            directory: directory, version: version,
            libraryDirectory: try place(
                "--pkglibdir", "plpgsql.so", ["../lib", "../lib/postgresql"], directory, interruption),
            shareDirectory: try place(
                "--sharedir", "extension",
                ["../share", "../share/postgresql", "../../../../share/postgresql/\(majorVersion)"], directory,
                interruption))
        guard programs.majorVersion == majorVersion else {
            throw KedgeError(
                .configuration, "cannot drill with \"\(programs.server)\": it is of another major version",
                detail: "The backup is of PostgreSQL \(majorVersion), and that program is of PostgreSQL \(version).",
                hint: "Set bin-dir to the programs of PostgreSQL \(majorVersion).")
        }
        return programs
    }

    private static func missing(_ majorVersion: Int, _ configured: RawPath?, _ usual: [RawPath]) -> KedgeError {
        let looked = (configured.map { [$0] } ?? usual).map { "\"\($0)\"" }.joined(separator: " and ")
        return KedgeError(
            .configuration, "cannot drill: there is no PostgreSQL \(majorVersion) on this host",
            detail: "There is no program \"postgres\" in \(looked).",
            hint:
                "Install the server's package, such as postgresql-\(majorVersion), or set bin-dir to the directory of "
                + "its programs.")
    }

    static func isExecutable(_ path: RawPath) -> Bool {
        do throws(KedgeError) {
            return try path.withCPath { (path) throws(KedgeError) in access(path, X_OK) == 0 }
        } catch {
            return false
        }
    }

    /// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` is 15.14.
    package static func version(in text: String) -> String? {
        let words = text.split { $0 == " " || $0 == "\n" }
        guard let index = words.firstIndex(of: "(PostgreSQL)"), index + 1 < words.count,
            words[index + 1].first?.isNumber == true
        else { return nil }
        return String(words[index + 1])
    }

    private static func versionText(_ server: RawPath, _ interruption: Interruption) throws(KedgeError) -> String {
        let outcome = try run([server.description, "--version"], interruption)
        guard outcome.status.isSuccess, let version = version(in: outcome.outputText) else {
            throw KedgeError(
                .configuration, "cannot drill with \"\(server)\": it does not tell its version",
                detail: "It said: \(outcome.outputText)\(outcome.errorText)".split(separator: "\n").joined(
                    separator: " "),
                hint: "Set bin-dir to the directory of PostgreSQL's programs.")
        }
        return version
    }

    /// What pg_config says, or, where that was not installed with the server, the first of `others` that holds `sign`.
    private static func place(
        _ option: String, _ sign: String, _ others: [String], _ directory: RawPath, _ interruption: Interruption
    ) throws(KedgeError) -> RawPath? {
        let program = directory.appending("pg_config")
        if isExecutable(program) {
            let outcome = try run([program.description, option], interruption)
            let line = outcome.outputText.split(separator: "\n").first.map { RawPath($0) }
            if outcome.status.isSuccess, let line, try FileSystem.exists(line.appending(sign)) { return line }
        }
        for other in others {
            let path = directory.appending(other)
            if try FileSystem.exists(path.appending(sign)) { return path }
        }
        return nil
    }

    private static func run(
        _ arguments: [String], _ interruption: Interruption
    ) throws(KedgeError) -> Subprocess.Outcome {
        var process = Subprocess(arguments)
        process.timeout = .seconds(30)
        process.interruption = interruption
        return try process.run()
    }
}
