// Credentials of an instance's role, against a service in this process that speaks version 2 of the protocol.
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct InstanceMetadataTests {
    /// What the service is and has seen.
    private struct Service {
        var role: String? = "backup-role"
        var tokens = 0
        var seconds = "21600"
        /// Tokens that are good now.
        var valid: Set<String> = []
        var requests: [String] = []
        var answer = """
            {"Code":"Success","LastUpdated":"2026-11-21T10:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIA1",
             "SecretAccessKey":"very/secret+","Token":"session==","Expiration":"2026-11-21T16:00:00Z"}
            """
        /// What the request for a token gets instead of one.
        var tokenReply: LocalHTTPServer.Reply?
    }

    private let service = Monitor(Service())
    private let server: LocalHTTPServer
    private let time = ManualTime()

    init() throws {
        let service = service
        server = try LocalHTTPServer { request in
            service.update { service in
                service.requests.append("\(request.method) \(request.target)")
                if request.method == "PUT", request.target == "/latest/api/token" {
                    if let reply = service.tokenReply { return reply }
                    guard request.header("x-aws-ec2-metadata-token-ttl-seconds") == "21600" else {
                        return .answer(400)
                    }
                    service.tokens += 1
                    let token = "token-\(service.tokens)=="
                    service.valid.insert(token)
                    let header = ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", service.seconds)
                    return .answer(200, headers: [header], body: Array(token.utf8))
                }
                // Whoever comes without a token gets nothing.
                guard let token = request.header("x-aws-ec2-metadata-token"), service.valid.contains(token) else {
                    return .answer(401)
                }
                guard let role = service.role else { return .answer(404) }
                switch request.target {
                case "/latest/meta-data/iam/security-credentials/":
                    return .answer(200, body: Array((role + "\nanother\n").utf8))
                case "/latest/meta-data/iam/security-credentials/\(role)":
                    return .answer(200, body: Array(service.answer.utf8))
                default: return .answer(404)
                }
            }
        }
    }

    private func metadata(
        _ endpoint: String? = nil, _ interruption: Interruption = Interruption(), stallSeconds: Int = 60
    ) -> InstanceMetadata {
        InstanceMetadata(
            endpoint: endpoint ?? server.endpoint, time: time, interruption: interruption,
            patience: .init(connectSeconds: 60, stallSeconds: stallSeconds))
    }

    private func failure(_ metadata: InstanceMetadata) -> KedgeError? {
        #expect(throws: KedgeError.self) { _ = try metadata.credentials() }
    }

    @Test("a token is asked for, then the role, then its credentials with their end")
    func credentials() throws {
        let found = try metadata().credentials()
        #expect(found.accessKeyID == "ASIA1" && found.expires == Timestamp(record: "2026-11-21T16:00:00Z"))
        #expect(String(decoding: found.secretAccessKey.bytes, as: UTF8.self) == "very/secret+")
        #expect(found.sessionToken.map { String(decoding: $0.bytes, as: UTF8.self) } == "session==")
        let path = "/latest/meta-data/iam/security-credentials/"
        #expect(
            service.update { $0.requests } == ["PUT /latest/api/token", "GET \(path)", "GET \(path)backup-role"])
        #expect(!"\(found)".contains("very/secret+"))
    }

    @Test("a token is used again until shortly before its end; one that ended early is replaced once")
    func tokenLife() throws {
        service.update { $0.seconds = "300" }
        let metadata = metadata()
        _ = try metadata.credentials()
        time.advance(seconds: 200)
        _ = try metadata.credentials()
        #expect(service.update { $0.tokens } == 1)
        time.advance(seconds: 100)
        _ = try metadata.credentials()
        #expect(service.update { $0.tokens } == 2)
        service.update { $0.valid = [] }
        _ = try metadata.credentials()
        #expect(service.update { $0.tokens } == 3)
    }

    @Test("a service that speaks only version 1 is refused, whatever it would hand out")
    func onlyVersion1() {
        for status in [404, 405] {
            service.update { $0.tokenReply = .answer(status) }
            let error = failure(metadata())
            #expect(error?.code == .configuration && error?.detail?.contains("version 1") == true)
        }
        #expect(service.update { $0.requests.allSatisfy { $0.hasPrefix("PUT ") } })
    }

    @Test("a service that is off, has no role, sends nonsense or is not there is told from each other")
    func refusals() {
        service.update { $0.tokenReply = .answer(403) }
        #expect(failure(metadata())?.code == .permission)
        service.update { $0.tokenReply = .answer(503) }
        #expect(failure(metadata())?.code == .repositoryUnavailable)
        service.update { $0.tokenReply = .answer(200, body: Array("two\nlines".utf8)) }
        #expect(failure(metadata())?.code == .permission)
        service.update { $0.tokenReply = .bytes([], reset: true) }
        #expect(failure(metadata())?.code == .repositoryUnavailable)
        service.update {
            $0.tokenReply = nil
            $0.role = nil
        }
        let noRole = failure(metadata())
        #expect(noRole?.code == .configuration && noRole?.detail == "The instance has no role.")
        // The name of a role becomes part of a path.
        service.update { $0.role = "../../user-data" }
        #expect(failure(metadata())?.code == .configuration)
        service.update { $0.role = "r" }
        for answer in [
            "", "[]", "{\"Code\":\"Success\"}", "{\"AccessKeyId\":\"very/secret+\",\"SecretAccessKey\":3}",
            "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"very/secret+\",\"Token\":\"t\",\"Expiration\":\"soon\"}",
            "{\"Code\":\"AssumeRoleUnauthorizedAccess\"}",
        ] {
            service.update { $0.answer = answer }
            let error = failure(metadata())
            #expect(error?.code == .repositoryUnavailable, "\(answer)")
            #expect(error?.description.contains("very/secret+") == false)
        }
        #expect(failure(metadata("http://127.0.0.1:1"))?.code == .repositoryUnavailable)
    }

    @Test("an answer that is lost on its way names the limit of hops")
    func hops() {
        service.update { $0.tokenReply = .silence }
        let error = failure(metadata(stallSeconds: 1))
        #expect(error?.code == .timeout && error?.detail?.contains("HttpPutResponseHopLimit") == true)
    }

    @Test("an interruption ends the wait")
    func interrupted() {
        let interruption = Interruption()
        interruption.request(signal: 15)
        service.update { $0.tokenReply = .silence }
        #expect(failure(metadata(nil, interruption))?.code == .interrupted)
    }
}
