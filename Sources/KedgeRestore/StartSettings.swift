// How a restored cluster is started so that it is the restored one: its own configuration may still name the original's
// files, and a data_directory there wins over -D (src/backend/utils/misc/guc.c, SelectConfigFiles).

package import KedgeCore

/// What the command line of a restored server has to say, and what to warn of.
package struct StartSettings: Sendable {
    /// Whether data_directory has to be given, since the configuration names another one or that cannot be excluded.
    package let overridesDataDirectory: Bool
    /// The settings with which the configuration names files outside of the data directory, with their values.
    package let outside: [(name: String, value: String)]

    /// Of a dry run: nothing is there to be looked at.
    package static let unknown = StartSettings(overridesDataDirectory: false, outside: [])

    private init(overridesDataDirectory: Bool, outside: [(name: String, value: String)]) {
        self.overridesDataDirectory = overridesDataDirectory
        self.outside = outside
    }

    /// Decides by the settings of a configuration, by name in small letters. `isComplete`: it could all be read.
    package init(_ values: [String: String], isComplete: Bool, dataDirectory: RawPath) {
        overridesDataDirectory = !isComplete || values["data_directory"].map { RawPath($0) != dataDirectory } ?? false
        let inside = dataDirectory.bytes + [0x2F]
        var outside: [(name: String, value: String)] = []
        for name in ["hba_file", "ident_file", "external_pid_file"] {
            guard let value = values[name], RawPath(value).isAbsolute else { continue }
            let leadsUp = value.split(separator: "/").contains("..")
            if leadsUp || !RawPath(value).bytes.starts(with: inside) { outside.append((name, value)) }
        }
        self.outside = outside
    }

    /// Reads the configuration that a server in `dataDirectory` would read on this host from `main` on. What cannot be
    /// read is taken for what names another directory.
    package init(main: RawPath, dataDirectory: RawPath) {
        do throws(KedgeError) {
            let settings = try RestoredSettings(
                main: main, .init(original: dataDirectory, restored: dataDirectory, extraFiles: RawPath(bytes: [])))
            self.init(settings.values, isComplete: settings.missing.isEmpty, dataDirectory: dataDirectory)
        } catch {
            self.init([:], isComplete: false, dataDirectory: dataDirectory)
        }
    }
}

extension Restore.Outcome {
    /// The configuration file that the restored server starts with, where it lies outside of the data directory.
    package var outerConfigurationFile: RawPath? {
        guard let file = extraFiles.first(where: { $0.lastComponent == "postgresql.conf" }) else { return nil }
        return RawPath((extraFilesDirectory?.description ?? "") + file.description)
    }

    /// Looks at what was written.
    package func startSettings() -> StartSettings {
        guard isWritten else { return .unknown }
        let main = outerConfigurationFile ?? pgdata.appending("postgresql.conf")
        return StartSettings(main: main, dataDirectory: pgdata)
    }
}
