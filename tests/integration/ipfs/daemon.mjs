// A real IPFS daemon (js-ipfs) for tests: offline, its API on the loopback; when it is ready it prints its address.
// Usage: node daemon.mjs REPO_DIRECTORY. It ends when its standard input does, so that no test can leave it behind.

import { create } from 'ipfs-core'
import { HttpApi } from 'ipfs-http-server'

const node = await create({
  repo: process.argv[2],
  offline: true,
  silent: true,
  config: {
    Addresses: { Swarm: [], API: '/ip4/127.0.0.1/tcp/0', Gateway: '', RPC: '/ip4/127.0.0.1/tcp/0' },
    Bootstrap: [],
    Discovery: { MDNS: { Enabled: false }, webRTCStar: { Enabled: false } },
    Pubsub: { Enabled: false }
  }
})
const api = new HttpApi(node)
await api.start()
console.log(String(api.apiAddr))

process.stdin.resume()
process.stdin.on('end', async () => {
  await api.stop()
  await node.stop()
  process.exit(0)
})
