# Sign-in and sessions: Connect-ExchangeOnline, Disconnect-ExchangeOnline, Get-ConnectionInformation.

$script:Handlers = @{}

# The connection that a cmdlet with this prefix goes to: the youngest one.
function Get-StandInCurrent {
    param([string]$Prefix)
    $connection = $null
    foreach ($one in $script:World.Connections) { if ($one.ModulePrefix -eq $Prefix -and -not $one.IsEopSession) { $connection = $one } }
    if ($null -eq $connection) { throw (New-StandInFailure -Kind 'NotConnected' -Message 'There is no connection to Exchange Online: call Connect-ExchangeOnline') }
    if ($connection.State -ne 'Connected' -or $connection.TokenStatus -ne 'Active') {
        throw (New-StandInFailure -Kind 'UnAuthorized' -Message 'UnAuthorized: the token of this connection has expired')
    }
    $connection
}

$script:Handlers['Get-ConnectionInformation'] = {
    param($call)
    foreach ($one in $script:World.Connections) {
        if ($call.Given.ContainsKey('ConnectionId') -and @($call.Given['ConnectionId']) -notcontains $one.ConnectionId) { continue }
        if ($call.Given.ContainsKey('ModulePrefix') -and @($call.Given['ModulePrefix']) -notcontains $one.ModulePrefix) { continue }
        $shown = New-Object PSObject
        foreach ($key in $one.Keys) { if ($key -ne 'Alive') { $shown | Add-Member -MemberType NoteProperty -Name $key -Value $one[$key] } }
        $shown
    }
}

$script:Handlers['Connect-ExchangeOnline'] = {
    param($call)
    $given = $call.Given
    $environment = 'O365Default'
    if ($given.ContainsKey('ExchangeEnvironmentName')) { $environment = $given['ExchangeEnvironmentName'] }
    if ($given.ContainsKey('Credential')) {
        throw (New-StandInFailure -Kind 'AADSTS50076' -Message 'AADSTS50076: multi-factor authentication is required; a user name and a password do not do')
    }
    $appOnly = $given.ContainsKey('AppId')
    $managed = $given.ContainsKey('ManagedIdentity') -and [bool]$given['ManagedIdentity']
    $tenant = $null
    if ($appOnly -or $managed) {
        if (-not $given.ContainsKey('Organization')) {
            throw (New-StandInFailure -Kind 'Arguments' -Message 'Organization is required for app-only access')
        }
        $tenant = @($script:World.Tenants.Values | Where-Object { $_.Organization -eq $given['Organization'] })[0]
        if (-not $tenant) {
            throw (New-StandInFailure -Kind 'UnAuthorized' -Message "UnAuthorized: '$($given['Organization'])' is not the primary .onmicrosoft.com name of a tenant that knows this application")
        }
    }
    if ($appOnly) {
        $ways = @('CertificateThumbprint', 'CertificateFilePath', 'Certificate', 'AccessToken' | Where-Object { $given.ContainsKey($_) })
        if ($ways.Count -ne 1) {
            throw (New-StandInFailure -Kind 'Arguments' -Message 'AppId takes exactly one of CertificateThumbprint, CertificateFilePath, Certificate')
        }
        if ($ways[0] -eq 'CertificateThumbprint' -and -not $script:World.Windows) {
            throw (New-StandInFailure -Kind 'Arguments' -Message 'CertificateThumbprint reads the certificate store of Windows and is not supported on this system')
        }
        if ($ways[0] -eq 'CertificateFilePath' -and -not (Test-Path -LiteralPath $given['CertificateFilePath'])) {
            throw (New-StandInFailure -Kind 'Arguments' -Message "The certificate file '$($given['CertificateFilePath'])' was not found")
        }
        if (-not $tenant.Apps.ContainsKey($given['AppId'])) {
            throw (New-StandInFailure -Kind 'AADSTS700016' -Message "AADSTS700016: application '$($given['AppId'])' was not found in the directory")
        }
        if (-not $tenant.Apps[$given['AppId']].Role) {
            throw (New-StandInFailure -Kind 'UnAuthorized' -Message "The role assigned to application $($given['AppId']) isn't supported in this scenario: it needs Exchange.ManageAsApp and a directory role")
        }
    }
    $user = ''
    $delegated = ''
    if (-not $appOnly -and -not $managed) {
        $user = $script:World.SignsIn
        if ($given.ContainsKey('UserPrincipalName')) { $user = $given['UserPrincipalName'] }
        $ownTenant = @($script:World.Tenants.Values | Where-Object { $_.Users -contains $user })[0]
        if (-not $ownTenant) { throw (New-StandInFailure -Kind 'AADSTS50034' -Message "AADSTS50034: the account '$user' does not exist in the directory") }
        $tenant = $ownTenant
        if ($given.ContainsKey('DelegatedOrganization')) {
            $delegated = $given['DelegatedOrganization']
            $tenant = @($script:World.Tenants.Values | Where-Object { $_.Organization -eq $delegated -or $_.AcceptedDomains -contains $delegated })[0]
            if (-not $tenant -or $tenant.Partners -notcontains $ownTenant.Organization) {
                throw (New-StandInFailure -Kind 'UnAuthorized' -Message "UnAuthorized: '$user' has no delegated access to '$delegated'")
            }
        }
    }
    if ($tenant.Environment -ne $environment) {
        throw (New-StandInFailure -Kind 'AADSTS900382' -Message "AADSTS900382: this tenant is not in the cloud '$environment'")
    }
    if ($script:World.Connections.Count -ge 10) {
        throw (New-StandInFailure -Kind 'TooMany' -Message 'There are ten connections in this session: that is the maximum')
    }
    $prefix = ''
    if ($given.ContainsKey('Prefix')) { $prefix = $given['Prefix'] }
    Add-StandInConnection -Tenant $tenant -User $user -AppId ([string]$given['AppId']) -Delegated $delegated -Prefix $prefix
    if (-not $given.ContainsKey('ShowBanner') -or [bool]$given['ShowBanner']) { $call.Answer.Warnings += 'banner of the stand-in: pass -ShowBanner:$false' }
}

# Opens a session and brings its cmdlets, as Connect-ExchangeOnline does.
function Add-StandInConnection {
    param($Tenant, [string]$User, [string]$AppId, [string]$Delegated, [string]$Prefix)
    $script:World.Opened++
    $organization = ''
    if (-not $User) { $organization = $Tenant.Organization }
    [void]$script:World.Connections.Add([ordered]@{
        ConnectionId = [guid]::NewGuid().ToString(); State = 'Connected'; Id = $script:World.Opened; Name = "ExchangeOnline_$($script:World.Opened)"
        UserPrincipalName = $User; ConnectionUri = 'https://outlook.office365.com'; AzureAdAuthorizationEndpointUri = 'https://login.microsoftonline.com/organizations'
        TokenExpiryTimeUTC = $script:World.Clock.AddHours(1); CertificateAuthentication = [bool]$AppId; ModuleName = 'tmpEXO_standin'; ModulePrefix = $Prefix
        Organization = $organization; DelegatedOrganization = $Delegated; AppId = $AppId; PageSize = 1000; TenantID = $Tenant.TenantId
        TokenStatus = 'Active'; ConnectionUsedForInbuiltCmdlets = $true; IsEopSession = $false
    })
    Update-StandInModule
}

# The tenant's cmdlets are there exactly for the prefixes of open connections.
function Update-StandInModule {
    $wanted = @{}
    foreach ($one in $script:World.Connections) { if (-not $one.IsEopSession) { $wanted[$one.ModulePrefix] = $true } }
    foreach ($prefix in @($script:Imported.Keys)) {
        if ($wanted.ContainsKey($prefix)) { continue }
        foreach ($name in (Get-StandInFunction).Keys) { Remove-Item -Path ('function:' + $name.Replace('-', "-$prefix")) -Confirm:$false -WhatIf:$false }
        $script:Imported.Remove($prefix)
    }
    foreach ($prefix in @($wanted.Keys)) {
        if ($script:Imported.ContainsKey($prefix)) { continue }
        $functions = Get-StandInFunction
        foreach ($name in $functions.Keys) { Set-Item -Path ('function:global:' + $name.Replace('-', "-$prefix")) -Value $functions[$name] -Confirm:$false -WhatIf:$false }
        $script:Imported[$prefix] = $true
    }
}
$script:Imported = @{}

$script:Handlers['Disconnect-ExchangeOnline'] = {
    param($call)
    $given = $call.Given
    $keep = New-Object System.Collections.ArrayList
    foreach ($one in $script:World.Connections) {
        $goes = $true
        if ($given.ContainsKey('ConnectionId')) { $goes = @($given['ConnectionId']) -contains $one.ConnectionId }
        if ($given.ContainsKey('ModulePrefix')) { $goes = @($given['ModulePrefix']) -contains $one.ModulePrefix }
        if (-not $goes) { [void]$keep.Add($one) }
    }
    $script:World.Connections = $keep
    Update-StandInModule
}
