// Proves that a restored server is started on its own data directory, whatever its configuration names.
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeRestore

@Suite struct StartSettingsTests {
    private let copy: RawPath = "/srv/copy"

    @Test("data_directory is given on the command line unless the configuration is known to name this one or none")
    func dataDirectory() {
        func overrides(_ values: [String: String], isComplete: Bool = true) -> Bool {
            StartSettings(values, isComplete: isComplete, dataDirectory: copy).overridesDataDirectory
        }
        #expect(!overrides([:]) && !overrides(["data_directory": "/srv/copy"]))
        for other in ["/srv/original", "/srv/copy2", "/srv/copy/../original", ".", ""] {
            #expect(overrides(["data_directory": other]), "\(other)")
        }
        #expect(overrides([:], isComplete: false))
        #expect(overrides(["data_directory": "/srv/copy"], isComplete: false))
    }

    @Test("settings that name files outside of the data directory are told, and no others")
    func outside() {
        let settings = StartSettings(
            [
                "hba_file": "/etc/pg/pg_hba.conf", "ident_file": "/srv/copy/pg_ident.conf", "external_pid_file": "",
                "data_directory": "/srv/copy", "log_directory": "/var/log",
            ], isComplete: true, dataDirectory: copy)
        #expect(
            settings.outside.map(\.name) == ["hba_file"] && settings.outside.map(\.value) == ["/etc/pg/pg_hba.conf"])
        for path in ["/srv/copy2/x", "/srv/copy/../x", "/run/pg.pid"] {
            let one = StartSettings(["external_pid_file": path], isComplete: true, dataDirectory: copy)
            #expect(one.outside.map(\.name) == ["external_pid_file"], "\(path)")
        }
        let relative = StartSettings(["hba_file": "pg_hba.conf"], isComplete: true, dataDirectory: copy)
        #expect(relative.outside.isEmpty)
    }

    @Test("it is read from postgresql.conf, what that includes, and postgresql.auto.conf, which comes last")
    func files() throws {
        let directory = try TemporaryDirectory()
        let data = RawPath(directory("data"))
        func write(_ name: String, _ text: String) throws {
            let path = data.appending(name)
            try Directory.createWithParents(at: path.parent)
            if try FileSystem.exists(path) { try FileSystem.removeFile(at: path) }
            try FileDescriptor.open(path, [.write, .create]).write(Array(text.utf8), at: 0)
        }
        func read() -> StartSettings {
            StartSettings(main: data.appending("postgresql.conf"), dataDirectory: data)
        }
        // Nothing can be read.
        #expect(read().overridesDataDirectory)
        try write("postgresql.conf", "port = 1\n#data_directory = '/srv/original'\n")
        #expect(!read().overridesDataDirectory)
        try write("postgresql.auto.conf", "Data_Directory = '/srv/original'\n")
        #expect(read().overridesDataDirectory)
        try write("postgresql.auto.conf", "data_directory = '\(data)'\n")
        #expect(!read().overridesDataDirectory)
        try write("postgresql.auto.conf", "")
        try write("postgresql.conf", "include 'more.conf'\n")
        #expect(read().overridesDataDirectory)
        try write("more.conf", "data_directory '/srv/original'\nexternal_pid_file=/run/pg.pid\n")
        #expect(read().overridesDataDirectory && read().outside.map(\.value) == ["/run/pg.pid"])
        try write("more.conf", "port = 2\n")
        #expect(!read().overridesDataDirectory && read().outside.isEmpty)
    }
}
