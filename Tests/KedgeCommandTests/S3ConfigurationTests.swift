// Repositories of type s3 in the configuration file, and where their credentials come from.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct S3ConfigurationTests {
    private func load(_ repository: String) throws(KedgeError) -> Configuration {
        let text = "[repository far]\n\(repository)\nencryption = none\n[cluster main]\npgdata = /pg\n"
        let file = SmallFile(bytes: Array(text.utf8), mode: 0o640)
        let parser = ArgumentParser(
            commands: CommandTable.all.map(\.specification), configurationKeys: ConfigurationKey.all.map(\.name))
        guard case .run(_, let arguments) = try parser.parse(["info"]) else {
            throw KedgeError(.defect, "the test's words run no command")
        }
        return try Configuration(
            arguments: arguments, environment: [], host: HostFacts(processors: 2, userID: 1000),
            readFile: { (_, _, _) throws(KedgeError) in file })
    }

    private func place(_ repository: String) throws -> S3Configuration {
        guard case .s3(let s3) = try load(repository).repositories[0].place else {
            throw KedgeError(.defect, "it is no repository of type s3")
        }
        return s3
    }

    @Test("a bucket alone is enough; everything else has a default")
    func defaults() throws {
        let s3 = try place("type = s3\nbucket = backups\nregion = eu-west-1")
        #expect(s3.location.description == "s3://backups at https://s3.eu-west-1.amazonaws.com")
        #expect(s3.location.uriStyle == .path && s3.conditionalPut)
        #expect(s3.keyFiles == nil && s3.keeping == S3Keeping() && s3.trustFile == nil)
    }

    @Test("every key is taken")
    func allKeys() throws {
        let s3 = try place(
            """
            type = s3
            endpoint = https://store:9000
            bucket = b-1
            prefix = a/b
            uri-style = host
            access-key-id-file = /id
            secret-access-key-file = /secret
            ca-file = /ca
            storage-class = STANDARD_IA
            conditional-put = no
            """)
        #expect(s3.location.description == "s3://b-1/a/b at https://store:9000")
        #expect(s3.location.uriStyle == .host && !s3.conditionalPut)
        #expect(s3.keyFiles == .init(accessKeyID: "/id", secretAccessKey: "/secret"))
        #expect(s3.trustFile == "/ca" && s3.keeping.storageClass == "STANDARD_IA")
    }

    @Test(
        "what contradicts itself is refused",
        arguments: [
            ("type = s3", "has no key \"bucket\""),
            ("type = s3\nbucket = bucket\npath = /x", "key \"path\" is for repositories of type local"),
            ("path = /x\nbucket = bucket", "key \"bucket\" is for repositories of type s3"),
            ("type = s3\nbucket = b", "cannot use \"b\" as the name of a bucket"),
            ("type = s3\nbucket = bucket\nendpoint = store", "as the endpoint"),
            ("type = s3\nbucket = bucket\naccess-key-id-file = /id", "has one of access-key-id-file"),
            ("type = sftp\npath = /x", "type sftp is not supported yet"),
        ])
    func refusals(_ text: String, _ expected: String) {
        let error = #expect(throws: KedgeError.self) { try load(text) }
        #expect(error?.description.contains(expected) == true, "\(String(describing: error))")
    }

    @Test(
        "no error shows what stands where a secret may have been written",
        arguments: [
            ("endpoint = https://AKIA:s3cr3t@store", "without a path, a user or a password"),
            ("endpoint = https://store/?X-Amz-Signature=s3cr3t", "without a path, a user or a password"),
            ("endpoint = s3cr3t", "without a path, a user or a password"),
            ("secret-access-key-file = s3cr3t\naccess-key-id-file = /id", "secret-access-key-file"),
            ("access-key-id-file = s3cr3t\nsecret-access-key-file = /key", "access-key-id-file"),
            ("passphrase-file = s3cr3t", "passphrase-file"), ("key-file = s3cr3t", "key-file"),
        ])
    func secretValues(_ text: String, _ told: String) {
        let error = #expect(throws: KedgeError.self) { try load("type = s3\nbucket = bucket\n" + text) }
        #expect(error?.code == .configuration)
        #expect(error?.description.contains("s3cr3t") == false, "\(String(describing: error))")
        #expect(error?.description.contains(told) == true, "\(String(describing: error))")
        #expect(error?.hint != nil)
    }

    // MARK: - Credentials

    private static let file = """
        # a comment
        [default]
        aws_access_key_id = ID1
        aws_secret_access_key = secret+1/=
        [ other ]
        AWS_ACCESS_KEY_ID=ID2
        aws_secret_access_key=secret2
        aws_session_token = token
        [empty]
        """

    private func reader(
        _ files: S3Configuration.KeyFiles? = nil, environment: [String: String] = [:], contents: [String: String] = [:],
        mode: UInt32 = 0o600
    ) -> S3CredentialReader {
        let secrets = SecretReader(
            readFile: { (path, what, _) throws(KedgeError) in
                guard let text = contents[path] else { throw KedgeError(.configuration, "no \(what)") }
                return SmallFile(bytes: Array(text.utf8), mode: mode)
            }, runShell: { _ throws(KedgeError) in throw KedgeError(.defect, "nothing is run") })
        return S3CredentialReader(
            files, environment: environment.map { EnvironmentVariable($0.key, $0.value) }, secrets: secrets,
            fileExists: { contents[$0] != nil })
    }

    private func found(_ reader: S3CredentialReader) throws -> String {
        let credentials = try reader.credentials(at: Timestamp(microseconds: 0))
        func text(_ secret: Secret) -> String { String(decoding: secret.bytes, as: UTF8.self) }
        return "\(credentials.accessKeyID) \(text(credentials.secretAccessKey)) "
            + (credentials.sessionToken.map(text) ?? "-")
    }

    @Test("files come before the environment, and that before the shared file")
    func order() throws {
        let contents = ["/id": "ID0\n", "/secret": "secret0\n", "/home/.aws/credentials": Self.file]
        var environment = ["HOME": "/home", "AWS_ACCESS_KEY_ID": "ID3", "AWS_SECRET_ACCESS_KEY": "secret3"]
        let files = S3Configuration.KeyFiles(accessKeyID: "/id", secretAccessKey: "/secret")
        #expect(try found(reader(files, environment: environment, contents: contents)) == "ID0 secret0 -")
        #expect(try found(reader(environment: environment, contents: contents)) == "ID3 secret3 -")
        environment["AWS_SESSION_TOKEN"] = "T"
        #expect(try found(reader(environment: environment, contents: contents)) == "ID3 secret3 T")
        environment = ["HOME": "/home"]
        #expect(try found(reader(environment: environment, contents: contents)) == "ID1 secret+1/= -")
        environment["AWS_PROFILE"] = "other"
        #expect(try found(reader(environment: environment, contents: contents)) == "ID2 secret2 token")
    }

    @Test("a profile of the config file has another kind of name; what it may have instead of keys is named")
    func configFile() throws {
        let config =
            "[default]\nregion = x\n[profile prod]\naws_access_key_id = ID5\naws_secret_access_key = s5\n"
            + "[profile role]\nrole_arn = arn:x\n"
        let home = ["HOME": "/home"]
        let contents = ["/home/.aws/config": config]
        var environment = home.merging(["AWS_PROFILE": "prod"]) { $1 }
        #expect(try found(reader(environment: environment, contents: contents)) == "ID5 s5 -")
        environment["AWS_CONFIG_FILE"] = "/elsewhere"
        #expect(try found(reader(environment: environment, contents: ["/elsewhere": config])) == "ID5 s5 -")
        environment["AWS_PROFILE"] = "role"
        let error = #expect(throws: KedgeError.self) {
            try found(reader(environment: environment, contents: ["/elsewhere": config]))
        }
        #expect(error?.detail?.contains("role_arn, which it has, is not supported") == true)
    }

    @Test("credentials that end are asked for again before they do, and kept where that fails, until they end")
    func renewal() throws {
        let state = Monitor((end: "2026-11-21T16:00:00Z", isUp: true, asked: 0))
        let server = try LocalHTTPServer { request in
            state.update { state in
                guard state.isUp else { return .answer(503) }
                if request.method == "PUT" { return .answer(200, body: Array("token".utf8)) }
                guard !request.target.hasSuffix("/") else { return .answer(200, body: Array("role".utf8)) }
                state.asked += 1
                return .answer(
                    200,
                    body: Array(
                        """
                        {"AccessKeyId":"ID\(state.asked)","SecretAccessKey":"s","Token":"t","Expiration":"\(state.end)"}
                        """.utf8))
            }
        }
        let secrets = SecretReader(
            readFile: { (_, _, _) throws(KedgeError) in throw KedgeError(.defect, "there is no file") },
            runShell: { _ throws(KedgeError) in throw KedgeError(.defect, "nothing is run") })
        func reader(_ environment: [EnvironmentVariable] = []) -> S3CredentialReader {
            S3CredentialReader(
                nil, environment: environment, secrets: secrets, fileExists: { _ in false },
                metadata: InstanceMetadata(
                    endpoint: server.endpoint, time: SystemTimeSource(), interruption: Interruption(),
                    patience: .init(connectSeconds: 60, stallSeconds: 60)))
        }
        let role = reader()
        func id(at time: String) throws -> String {
            try role.credentials(at: #require(Timestamp(record: "2026-11-21T\(time)Z"))).accessKeyID
        }
        #expect(try id(at: "10:00:00") == "ID1")
        #expect(try id(at: "15:54:59") == "ID1")
        state.update { $0.isUp = false }
        #expect(try id(at: "15:55:01") == "ID1")
        #expect(throws: KedgeError.self) { try id(at: "16:00:01") }
        state.update { $0 = ("2026-11-21T22:00:00Z", true, $0.asked) }
        #expect(try id(at: "16:00:02") == "ID2")
        // The store may know better when they ended.
        let moment = try #require(Timestamp(record: "2026-11-21T16:01:00Z"))
        let refused = try role.credentials(at: moment)
        #expect(try role.renew(refused, at: moment))
        #expect(try id(at: "16:01:00") == "ID3")
        // Whoever was refused with the same ones later finds those that are there.
        #expect(try role.renew(refused, at: moment))
        #expect(try id(at: "16:01:00") == "ID3")
        let disabled = reader([EnvironmentVariable("AWS_EC2_METADATA_DISABLED", "true")])
        #expect(throws: KedgeError.self) { try disabled.credentials(at: moment) }
        #expect(state.update { $0.asked } == 3)
    }

    @Test("credentials that do not end are read again when the store calls them stale; the same ones are no others")
    func renewedFiles() throws {
        let contents = Monitor(["/id": "ID0\n", "/secret": "secret0\n"])
        let secrets = SecretReader(
            readFile: { (path, what, _) throws(KedgeError) in
                guard let text = contents.update({ $0[path] }) else { throw KedgeError(.configuration, "no \(what)") }
                return SmallFile(bytes: Array(text.utf8), mode: 0o600)
            }, runShell: { _ throws(KedgeError) in throw KedgeError(.defect, "nothing is run") })
        let reader = S3CredentialReader(
            S3Configuration.KeyFiles(accessKeyID: "/id", secretAccessKey: "/secret"), environment: [],
            secrets: secrets, fileExists: { _ in true })
        let first = try reader.credentials(at: Timestamp(microseconds: 0))
        #expect(try !reader.renew(first, at: Timestamp(microseconds: 0)))
        contents.update { $0["/secret"] = "secret1\n" }
        #expect(try reader.renew(first, at: Timestamp(microseconds: 0)))
        #expect(try found(reader) == "ID0 secret1 -")
    }

    @Test("no credentials, a profile without any and a file that others can read are errors")
    func refusedCredentials() {
        func code(_ reader: S3CredentialReader) -> ErrorCode? {
            let error = #expect(throws: KedgeError.self) { try reader.credentials(at: Timestamp(microseconds: 0)) }
            #expect(error?.description.contains("secret+1") == false)
            return error?.code
        }
        let home = ["HOME": "/home"]
        let contents = ["/home/.aws/credentials": Self.file]
        #expect(code(reader()) == .configuration)
        #expect(code(reader(environment: home)) == .configuration)
        #expect(
            code(reader(environment: home.merging(["AWS_PROFILE": "empty"]) { $1 }, contents: contents))
                == .configuration)
        #expect(code(reader(environment: home, contents: contents, mode: 0o644)) == .keyUnsafe)
        let files = S3Configuration.KeyFiles(accessKeyID: "/id", secretAccessKey: "/secret")
        #expect(code(reader(files, contents: ["/id": "ID\nmore", "/secret": "x"])) == .configuration)
        #expect(code(reader(files, contents: ["/id": "", "/secret": "x"])) == .configuration)
    }
}
