// What a configuration means: values, defaults, layers and the choice of a section.
import KedgeCodec
import KedgeCore
import Testing

@testable import KedgeCommand

private let full = """
    [repository main]
    type = local
    path = /var/lib/kedge/
    compression = lz4
    encryption = aes-256-gcm
    key-file = /etc/kedge/main.key

    [repository spare]
    path = /srv/spare
    encryption = none
    # kept beside the first

    [cluster main]
    pgdata = /pg/15
    host = /run/postgresql
    port = 5433
    repositories = main, spare
    process-max = 2
    archive-timeout = 2min
    wal-damage = refuse
    on-unavailable = absent
    read-rate = 100MB

    [cluster test-2]
    pgdata = /pg/16
    repositories = spare
    """

@Suite struct ConfigurationTests {
    private func load(
        _ text: String, _ words: String = "info", environment: [EnvironmentVariable] = []
    ) throws(KedgeError) -> Configuration {
        let parser = ArgumentParser(
            commands: CommandTable.all.map(\.specification), configurationKeys: ConfigurationKey.all.map(\.name))
        guard case .run(_, let arguments) = try parser.parse(words.split(separator: " ").map(String.init)) else {
            throw KedgeError(.defect, "the test's words run no command")
        }
        return try Configuration(
            arguments: arguments, environment: environment, host: testHost,
            readFile: reader(["/etc/kedge/kedge.conf": text, "/other": text]))
    }

    @Test("every key of the file arrives, and defaults fill in the rest")
    func values() throws {
        let configuration = try load(full, "--cluster main info")
        let main = try configuration.cluster()
        #expect(main.name == "main")
        #expect(main.pgdata == "/pg/15")
        #expect(main.host == "/run/postgresql")
        #expect(main.port == 5433)
        #expect(main.user == nil)
        #expect(main.processMax == 2)
        #expect(main.archiveTimeout == .seconds(120))
        #expect(main.archiveGetTimeout == .seconds(60))
        #expect(main.refusesDamagedWAL)
        #expect(main.onUnavailable == .absent)
        #expect(main.readRate == 100 << 20)
        #expect(main.workDirectory == "/tmp/kedge-1000")
        let repositories = configuration.repositories(of: main)
        #expect(repositories.map(\.name) == ["main", "spare"])
        #expect(repositories[0].place.directory == "/var/lib/kedge")
        #expect(repositories[0].compression.description == "lz4:1")
        #expect(repositories[0].keySource == .keyFile("/etc/kedge/main.key"))
        #expect(repositories[1].keySource == nil)
        #expect(repositories[1].compression.description == "zstd:1")
        let other = configuration.clusters[1]
        #expect(other.processMax == 4)
        #expect(other.onUnavailable == nil)
        #expect(other.readRate == nil)
        #expect(!other.refusesDamagedWAL)
    }

    @Test("a path is absolute by its first byte, whatever mark combines with it")
    func absolutePath() throws {
        #expect(try ConfigurationValueKind.path.parse("/\u{301}a/") == .text("/\u{301}a"))
        #expect(throws: InvalidValue.self) { try ConfigurationValueKind.path.parse("\u{301}/a") }
        #expect(try ConfigurationValueKind.path.parse("//") == .text("/"))
    }

    @Test("every default of the table is a value of its key")
    func defaults() throws {
        for key in ConfigurationKey.all {
            if let text = key.defaultText { _ = try key.kind.parse(text) }
            #expect((key.defaultText == nil) != (key.defaultNote == nil), "\(key.name)")
        }
    }

    @Test("an option wins over the environment, a named variable over a general one, and all over the file")
    func layers() throws {
        let general = EnvironmentVariable("KEDGE_PROCESS_MAX", "3")
        let named = EnvironmentVariable("KEDGE_CLUSTER_TEST_2_PROCESS_MAX", "5")
        func processMax(_ words: String, _ environment: [EnvironmentVariable]) throws -> Int {
            try load(full, "--cluster test-2 \(words)", environment: environment).cluster().processMax
        }
        #expect(try processMax("info", []) == 4)
        #expect(try processMax("info", [general]) == 3)
        #expect(try processMax("info", [named, general]) == 5)
        #expect(try processMax("info --process-max 7", [general, named]) == 7)
        let moved = try load(full, environment: [EnvironmentVariable("KEDGE_REPOSITORY_MAIN_PATH", "/moved")])
        #expect(moved.repositories.map(\.place.directory) == ["/moved", "/srv/spare"])
    }

    @Test("the file, the cluster and the repository can be chosen in the environment")
    func selection() throws {
        let environment = [
            EnvironmentVariable("KEDGE_CONFIG", "/other"), EnvironmentVariable("KEDGE_CLUSTER", "main"),
            EnvironmentVariable("KEDGE_REPOSITORY", "spare"),
        ]
        let configuration = try load(full, environment: environment)
        #expect(configuration.path == "/other")
        #expect(try configuration.cluster().name == "main")
        #expect(try configuration.repository(of: configuration.cluster()).name == "spare")
        #expect(try load(full, "--cluster test-2 info").repository().name == "spare")
    }

    @Test("a variable that means nothing is a warning, not an error (lesson 52)")
    func warnings() throws {
        let noise = [
            EnvironmentVariable("KEDGE_COLOUR", "1"), EnvironmentVariable("KEDGE_REPOSITORY_GONE_PATH", "/x"),
            EnvironmentVariable("KEDGE_LOG_LEVEL", "info"), EnvironmentVariable("KEDGE_TYPE", ""),
        ]
        #expect(
            try load(full, environment: noise).warnings == [
                "environment variable \"KEDGE_COLOUR\" is ignored: no key or section fits its name",
                "environment variable \"KEDGE_REPOSITORY_GONE_PATH\" is ignored: no key or section fits its name",
            ])
    }

    @Test("where several are configured and none is chosen, the error lists the names")
    func unclear() throws {
        let configuration = try load(full)
        #expect(
            failure { () throws(KedgeError) in try configuration.cluster().name } == """
                kedge: error: cannot tell which cluster to work on
                detail: Several are configured: main, test-2.
                hint: Choose one with "--cluster main".
                code: configuration
                """)
        let main = configuration.clusters[0]
        #expect(
            failure { () throws(KedgeError) in try configuration.repository(of: main).name } == """
                kedge: error: cannot tell which repository to work on
                detail: Several are configured: main, spare.
                hint: Choose one with "--repository main".
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in
                try load(full, "info --repository main --cluster test-2").repository().name
            } == """
                kedge: error: cannot use repository "main" for cluster "test-2"
                detail: The cluster does not use it.
                hint: Its repositories are: spare.
                code: configuration
                """)
    }

    @Test("a wrong configuration is refused as a whole", arguments: ConfigurationTests.refusals)
    func refused(_ change: (String, String), _ words: String, _ expected: String) throws {
        let position = try #require(full.firstRange(of: change.0))
        let text = full[..<position.lowerBound] + change.1 + full[position.upperBound...]
        #expect(failure { () throws(KedgeError) in try load(String(text), words).path } == expected)
    }

    static let file = "kedge: error: cannot use configuration file \"/etc/kedge/kedge.conf\""

    static let refusals: [((String, String), String, String)] = [
        (
            ("compression = lz4", "compresion = lz4"), "info",
            """
            \(file), line 4: key "compresion" is unknown in [repository main]
            hint: Did you mean "compression"?  The keys of a repository are: type, path, endpoint, region, bucket, \
            prefix, uri-style, access-key-id-file, secret-access-key-file, ca-file, storage-class, \
            server-side-encryption, kms-key-id, object-lock, object-lock-days, conditional-put, compression, \
            encryption, key-file, passphrase-file, passphrase-command.
            code: configuration
            """
        ),
        (
            ("port = 5433", "path = /x"), "info",
            """
            \(file), line 16: key "path" is unknown in [cluster main]
            hint: It belongs into a [repository NAME] section.
            code: configuration
            """
        ),
        (
            ("[repository spare]", "[repostory spare]"), "info",
            """
            \(file), line 8: section kind "repostory" is unknown
            hint: Did you mean "repository"?  Sections are [cluster NAME] and [repository NAME].
            code: configuration
            """
        ),
        (
            ("type = local", "type = sftp"), "info",
            """
            kedge: error: cannot use repository "main": type sftp is not supported yet
            hint: Use type = local or type = s3.
            code: not-supported
            """
        ),
        (
            ("encryption = none", "compression = none"), "info",
            """
            \(file), line 8: [repository spare] has no key "encryption"
            hint: Add it, such as "encryption = aes-256-gcm": backups hold all data, so whether they are encrypted is \
            never left to a default.
            code: configuration
            """
        ),
        (
            ("key-file = /etc/kedge/main.key", ""), "info",
            """
            \(file), line 1: [repository main]
            detail: It has encryption = aes-256-gcm but no key.
            hint: Set exactly one of key-file, passphrase-file and passphrase-command; "kedge init --generate-key \
            FILE" makes a key file.
            code: configuration
            """
        ),
        (
            ("encryption = none", "encryption = none\nkey-file = /k"), "info",
            """
            \(file), line 8: [repository spare]
            detail: It has encryption = none and a key as well, which contradict each other.
            hint: Remove key-file, passphrase-file and passphrase-command, or write encryption = aes-256-gcm.
            code: configuration
            """
        ),
        (
            ("repositories = main, spare", "repositories = main, spar"), "info",
            """
            \(file), line 17: there is no repository "spar"
            hint: Did you mean "spare"?  The repositories are: main, spare.
            code: configuration
            """
        ),
        (
            ("path = /srv/spare", "path = /var/lib/kedge"), "info",
            """
            \(file)
            detail: Repositories "main" and "spare" have the same path "/var/lib/kedge".
            hint: Give each a place of its own, or remove one.
            code: configuration
            """
        ),
        (
            ("[cluster test-2]", "[cluster key]"), "info",
            """
            \(file), line 24: a cluster cannot be called "key"
            hint: Choose another name: the repository keeps something else under this one.
            code: configuration
            """
        ),
        (
            ("process-max = 2", "process-max = 0"), "info",
            """
            \(file), line 18: the value "0" of key "process-max" is out of range
            hint: Give a number from 1 to 256.
            code: configuration
            """
        ),
        (
            ("x", "x"), "info --cluster mian",
            """
            kedge: error: there is no cluster "mian" in configuration file "/etc/kedge/kedge.conf"
            hint: Did you mean "main"?  Configured: main, test-2.
            code: usage
            """
        ),
        (
            ("x", "x"), "info --path /y",
            """
            kedge: error: cannot use option "--path": it could be for several: main, spare
            hint: Choose one with "--repository main".
            code: usage
            """
        ),
        (
            ("x", "x"), "--cluster main info --archive-timeout 60",
            """
            kedge: error: cannot use option "--archive-timeout": the value "60" of key "archive-timeout" is not a \
            duration
            hint: Give a whole number with one of the units ms, s, min, h, d and w, such as "90s" or "7d".
            code: usage
            """
        ),
        (
            ("x", "x"), "--config /missing info",
            """
            kedge: error: could not open configuration file "/missing"
            detail: No such file or directory.
            hint: Create it, or correct the path.
            code: configuration
            """
        ),
    ]

    @Test("a wrong variable is named, and so is one that could mean two sections")
    func wrongVariable() {
        #expect(
            failure { () throws(KedgeError) in
                try load(full, environment: [EnvironmentVariable("KEDGE_CLUSTER_MAIN_PORT", "x")]).path
            } == """
                kedge: error: cannot use environment variable "KEDGE_CLUSTER_MAIN_PORT": the value "x" of key "port" \
                is not a whole number
                hint: Give a number from 1 to 65535.
                code: configuration
                """)
        let twins = "[repository a-b]\npath = /1\nencryption = none\n[repository a.b]\npath = /2\nencryption = none\n"
        #expect(
            failure { () throws(KedgeError) in
                try load(twins, environment: [EnvironmentVariable("KEDGE_REPOSITORY_A_B_PATH", "/x")]).path
            } == """
                kedge: error: cannot use environment variable "KEDGE_REPOSITORY_A_B_PATH": it could mean several \
                sections or keys
                hint: Rename a section so that names differ in more than case and punctuation.
                code: configuration
                """)
    }

    @Test(
        "values of every kind are read exactly",
        arguments: [
            ("7d", .duration(.seconds(7 * 86_400))), ("24h", .duration(.seconds(86_400))),
            ("30s", .duration(.seconds(30))), ("5min", .duration(.seconds(300))), ("5m", .duration(.seconds(300))),
            ("250ms", .duration(.milliseconds(250))), ("1 w", .duration(.seconds(604_800))), ("0s", .duration(.zero)),
        ] as [(String, ConfigurationValue)])
    func durations(_ text: String, _ value: ConfigurationValue) throws {
        #expect(try ConfigurationValueKind.duration(.zero ... .seconds(1_000_000)).parse(text) == value)
    }

    @Test("sizes count in steps of 1024", arguments: [("1B", 1), ("64MB", 64 << 20), ("3 kb", 3072), ("2TB", 2 << 40)])
    func sizes(_ text: String, _ bytes: Int64) throws {
        #expect(try ConfigurationValueKind.size(0...Int64.max).parse(text) == .integer(bytes))
    }

    @Test(
        "compression names a codec and its level",
        arguments: [
            ("zstd", "zstd:1"), ("zstd:-3", "zstd:-3"), ("lz4", "lz4:1"), ("zlib:9", "zlib:9"), ("none", "none"),
        ])
    func compression(_ text: String, _ expected: String) throws {
        guard case .compression(let choice) = try ConfigurationValueKind.compression.parse(text) else {
            Issue.record("\(text) is no compression")
            return
        }
        #expect(choice.description == expected)
    }

    @Test(
        "what is not a value of its kind is refused",
        arguments: [
            (.duration(.zero ... .seconds(9)), "10s"), (.duration(.zero ... .seconds(9)), "9"),
            (.duration(.zero ... .seconds(9)), "s"), (.duration(.zero ... .seconds(9)), "-1s"),
            (.duration(.zero ... .seconds(9)), "99999999999999999999s"),
            (.duration(.zero ... .seconds(9)), "9223372036854775807w"), (.size(0...1 << 50), "9223372036854775807TB"),
            (.size(0...10), "1.5B"), (.size(0...10), "11B"), (.integer(1...2), "+1"), (.integer(1...2), ""),
            (.boolean, "maybe"), (.path, "relative"), (.path, ""), (.text, ""), (.list, "a,,b"), (.list, "a,a"),
            (.list, ""), (.compression, "gzip"), (.compression, "none:1"), (.compression, "zstd:99"),
            (.compression, "zlib:0"), (.compression, "zstd:"), (.choice(["a"]), "A"),
        ] as [(ConfigurationValueKind, String)])
    func invalid(_ kind: ConfigurationValueKind, _ text: String) {
        #expect(throws: InvalidValue.self) { try kind.parse(text) }
    }
}
