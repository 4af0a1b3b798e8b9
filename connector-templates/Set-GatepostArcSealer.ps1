#Requires -Version 5.1

<#
.SYNOPSIS
    Lets Exchange Online trust the ARC seals of a domain, or no longer.

.DESCRIPTION
    Only needed where something on the way changes mail after it has been checked and seals it (ARC, d=). Gatepost passes mail on unchanged
    and seals nothing by itself; ask your Gatepost or mail administrator for the domain.

    The list of trusted sealers is one for the whole tenant: it is read, the domain is added or taken out, and the whole list is written.
    Entries of others stay. Before the change the state of the tenant is written to a folder beside the script (or below -ExportFolder), for
    its owner alone.

.PARAMETER Domain
    The d= domain of the seals; several are possible.

.PARAMETER Remove
    Takes the domain out of the list.

.PARAMETER ExportFolder
    Folder for the export of the state before the first change, each in a folder of its own; without it, beside the script.

.PARAMETER TenantId
    The tenant's directory ID (a GUID). The script refuses to read or change any other tenant.

.PARAMETER UserPrincipalName
    Account to sign in with, interactively.

.PARAMETER DelegatedOrganization
    The customer's tenant, for a partner with delegated administration.

.PARAMETER AppId
    Application to sign in as, with -Organization and a certificate.

.PARAMETER Organization
    The tenant's name that ends in .onmicrosoft.com, for an application or a managed identity.

.PARAMETER CertificateThumbprint
    Certificate of the application in the certificate store (Windows).

.PARAMETER CertificateFilePath
    Certificate of the application as a .pfx file.

.PARAMETER CertificatePassword
    Password of that file.

.PARAMETER ManagedIdentity
    Signs in as the managed identity of the machine, with -Organization.

.PARAMETER ManagedIdentityAccountId
    Client ID of a managed identity that the machine does not have by itself.

.PARAMETER ExchangeEnvironmentName
    The cloud that the tenant is in; O365Default where nothing is given.

.EXAMPLE
    .\Set-GatepostArcSealer.ps1 -Domain seal.contoso.com -WhatIf

    Shows the list as it is and as it would be.

.EXAMPLE
    .\Set-GatepostArcSealer.ps1 -Domain seal.contoso.com -Remove -UserPrincipalName admin@contoso.com

    Takes the domain out of the list again.

.EXAMPLE
    .\Set-GatepostArcSealer.ps1 -Domain seal.contoso.com -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Set-GatepostArcSealer.ps1" -Domain seal.contoso.com -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

    One tenant after another, each with the folder that was rendered for it. A session is opened and closed for each; a folder of another tenant is refused.

.OUTPUTS
    One object for each thing looked at: Type, Name, Action, Changes, Message. No value of a secret header stands in it.

.NOTES
    Exchange Administrator, or Organization Management. An application needs Exchange.ManageAsApp and the role Exchange Administrator.
    Security Administrator may change the ARC configuration as well; the export before it reads connectors and rules, too.
#>
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'Medium', PositionalBinding = $false)]
[OutputType([pscustomobject])]
param(
    [Parameter(Mandatory = $true)]
    [ValidatePattern('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9-]+$')]
    [string[]]$Domain,

    [switch]$Remove,

    [string]$ExportFolder,

    [ValidateNotNullOrEmpty()]
    [string]$TenantId = '@TenantId@',

    [string]$UserPrincipalName,

    [string]$DelegatedOrganization,

    [string]$AppId,

    [string]$Organization,

    [string]$CertificateThumbprint,

    [string]$CertificateFilePath,

    [securestring]$CertificatePassword,

    [switch]$ManagedIdentity,

    [string]$ManagedIdentityAccountId,

    [ValidateSet('O365Default', 'O365GermanyCloud', 'O365China', 'O365USGovGCCHigh', 'O365USGovDoD')]
    [string]$ExchangeEnvironmentName = '@ExchangeEnvironmentName@'
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

#region Common
# The same in every script of this folder, so that each works alone; a test holds it so.
$script:Doing = 'starting'
$script:Denied = $false
$script:OwnConnection = ''
$script:DisconnectAll = $false
$script:Hidden = @()

# The value of a property; nothing where the object has none of this name.
function Get-GatepostProperty {
    param($Object, [string]$Name)
    if ($null -eq $Object) { return $null }
    $property = $Object.PSObject.Properties[$Name]
    if ($null -eq $property) { return $null }
    $property.Value
}

# Ends the script with a reason that is no fault of Exchange Online.
function Deny-GatepostRun {
    param([string]$Reason)
    $script:Denied = $true
    throw $Reason
}

# A text without the values of secret headers.
function Protect-GatepostText {
    param([string]$Text)
    foreach ($value in $script:Hidden) { if ($value) { $Text = $Text.Replace($value, '(secret)') } }
    $Text
}

# What Exchange Online answered stays in the list of errors, but for answers that repeat a secret.
function Clear-GatepostError {
    foreach ($entry in @($Error)) {
        $shown = [string]$entry
        if ((Protect-GatepostText -Text $shown) -cne $shown) { $Error.Remove($entry) }
    }
}

# The error that a script ends with: what it was doing, why that failed, and how to go on.
function Get-GatepostFailure {
    param($Record)
    $text = Protect-GatepostText -Text ([string]$Record.Exception.Message)
    $id = 'GatepostRefused'
    if (-not $script:Denied) {
        $id = 'GatepostFailed'
        $text = 'Failed while ' + $script:Doing + ': ' + $text.TrimEnd(' ', '.') + '. Run the script again: it goes on from what is there.'
    }
    Clear-GatepostError
    $exception = New-Object -TypeName System.InvalidOperationException -ArgumentList $text
    New-Object -TypeName System.Management.Automation.ErrorRecord -ArgumentList $exception, $id, ([System.Management.Automation.ErrorCategory]::InvalidOperation), $null
}

# Fails where a value was neither filled in by render nor given.
function Assert-GatepostValue {
    param([string]$Name, [string[]]$Value)
    $bad = @($Value | Where-Object { -not $_ -or $_ -match '^@\w+@$' })
    if (@($Value).Count -eq 0 -or $bad.Count -gt 0) {
        Deny-GatepostRun -Reason "$Name has no value: give -$Name, or let 'gatepost connector render' fill this script in."
    }
}

# A parameter that may be left out: nothing where the template was not filled in.
function Get-GatepostOptional {
    param([string]$Value)
    if ($Value -match '^@\w+@$') { return [string]::Empty }
    $Value
}

# One line of the result: for one thing in the tenant, what was done with it.
function Write-GatepostResult {
    param([string]$Type, [string]$Name, [string]$Action, [string[]]$Changes = @(), [string]$Message = '')
    [pscustomobject]@{ Type = $Type; Name = $Name; Action = $Action; Changes = @($Changes); Message = $Message }
}

# What became of a change that ShouldProcess held back.
function Get-GatepostHeld {
    param([string]$Would)
    if ($WhatIfPreference) { return $Would }
    'Skipped'
}

# What Connect-ExchangeOnline is called with.
function Get-GatepostSignIn {
    $signIn = @{ ShowBanner = $false }
    $environment = Get-GatepostOptional -Value $ExchangeEnvironmentName
    if ($environment) { $signIn['ExchangeEnvironmentName'] = $environment }
    if ($AppId -or $ManagedIdentity) {
        if (-not $Organization) { Deny-GatepostRun -Reason 'Signing in as an application needs -Organization: the name of the tenant that ends in .onmicrosoft.com.' }
        if ($UserPrincipalName -or $DelegatedOrganization) { Deny-GatepostRun -Reason 'Give either a user (-UserPrincipalName, -DelegatedOrganization) or an application (-AppId or -ManagedIdentity), not both.' }
        $signIn['Organization'] = $Organization
    }
    if ($AppId) {
        if ($ManagedIdentity) { Deny-GatepostRun -Reason 'Give either -AppId or -ManagedIdentity, not both.' }
        if ([bool]$CertificateThumbprint -eq [bool]$CertificateFilePath) { Deny-GatepostRun -Reason '-AppId goes with one of -CertificateThumbprint (Windows) and -CertificateFilePath.' }
        $signIn['AppId'] = $AppId
        if ($CertificateThumbprint) { $signIn['CertificateThumbprint'] = $CertificateThumbprint }
        if ($CertificateFilePath) {
            $signIn['CertificateFilePath'] = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($CertificateFilePath)
            if ($null -ne $CertificatePassword) { $signIn['CertificatePassword'] = $CertificatePassword }
        }
    } elseif ($ManagedIdentity) {
        $signIn['ManagedIdentity'] = $true
        if ($ManagedIdentityAccountId) { $signIn['ManagedIdentityAccountId'] = $ManagedIdentityAccountId }
    } else {
        if ($CertificateThumbprint -or $CertificateFilePath) { Deny-GatepostRun -Reason 'A certificate goes with -AppId and -Organization.' }
        if ($Organization) { Deny-GatepostRun -Reason '-Organization goes with -AppId or -ManagedIdentity; a partner signs in with -DelegatedOrganization.' }
        if ($UserPrincipalName) { $signIn['UserPrincipalName'] = $UserPrincipalName }
        if ($DelegatedOrganization) { $signIn['DelegatedOrganization'] = $DelegatedOrganization }
    }
    $signIn
}

# The sessions to Exchange Online in this window whose cmdlets have no prefix and whose token is good.
function Get-GatepostSession {
    @(Get-ConnectionInformation -ErrorAction Stop | Where-Object {
        (Get-GatepostProperty -Object $_ -Name 'State') -eq 'Connected' -and (Get-GatepostProperty -Object $_ -Name 'TokenStatus') -eq 'Active' -and
        -not (Get-GatepostProperty -Object $_ -Name 'IsEopSession') -and -not (Get-GatepostProperty -Object $_ -Name 'ModulePrefix')
    })
}

# A session of the right tenant: one that is open, else one of our own. Nothing of another tenant is read.
function Connect-GatepostTenant {
    Assert-GatepostValue -Name 'TenantId' -Value $TenantId
    $signIn = Get-GatepostSignIn
    $script:Doing = 'loading the module ExchangeOnlineManagement'
    $minimum = [version]'3.2.0'
    $loaded = @(Get-Module -Name 'ExchangeOnlineManagement')
    if ($loaded.Count -eq 0) {
        $there = @(Get-Module -Name 'ExchangeOnlineManagement' -ListAvailable | Where-Object { $_.Version -ge $minimum })
        if ($there.Count -eq 0) { Deny-GatepostRun -Reason "The module ExchangeOnlineManagement $minimum or later is not on this machine. Install it: Install-Module -Name ExchangeOnlineManagement -Scope CurrentUser" }
        Import-Module -Name 'ExchangeOnlineManagement' -MinimumVersion $minimum -ErrorAction Stop
    } elseif ($loaded[0].Version -lt $minimum) {
        Deny-GatepostRun -Reason "ExchangeOnlineManagement $($loaded[0].Version) is loaded, and $minimum or later is needed. Update-Module -Name ExchangeOnlineManagement, then a new window."
    }
    $script:Doing = 'looking for an open session'
    $open = @(Get-GatepostSession)
    foreach ($one in $open) {
        $other = [string](Get-GatepostProperty -Object $one -Name 'TenantID')
        if ($other -ne $TenantId) { Deny-GatepostRun -Reason "This window is connected to tenant $other, and the script is for tenant $TenantId. Nothing was read or changed. Disconnect-ExchangeOnline, or use another window." }
    }
    if ($open.Count -gt 0) {
        Write-Verbose "Using the open session of tenant $TenantId as $(Get-GatepostProperty -Object $open[0] -Name 'UserPrincipalName')$(Get-GatepostProperty -Object $open[0] -Name 'AppId')."
        return
    }
    $script:Doing = "signing in to Exchange Online for tenant $TenantId"
    $before = @(Get-ConnectionInformation -ErrorAction Stop | ForEach-Object { [string](Get-GatepostProperty -Object $_ -Name 'ConnectionId') })
    $script:DisconnectAll = ($before.Count -eq 0)
    Connect-ExchangeOnline @signIn -ErrorAction Stop
    $own = @(Get-GatepostSession | Where-Object { $before -notcontains [string](Get-GatepostProperty -Object $_ -Name 'ConnectionId') })
    if ($own.Count -eq 0) { Deny-GatepostRun -Reason 'Connect-ExchangeOnline came back without a session.' }
    $script:OwnConnection = [string](Get-GatepostProperty -Object $own[0] -Name 'ConnectionId')
    $reached = [string](Get-GatepostProperty -Object $own[0] -Name 'TenantID')
    if ($reached -ne $TenantId) { Deny-GatepostRun -Reason "The sign-in led to tenant $reached, and the script is for tenant $TenantId. Nothing was read or changed." }
    Write-Verbose "Signed in to tenant $TenantId, $(Get-GatepostProperty -Object $own[0] -Name 'Organization')$(Get-GatepostProperty -Object $own[0] -Name 'DelegatedOrganization')."
}

# Closes the session that this script opened, and no other.
function Disconnect-GatepostTenant {
    try {
        if ($script:OwnConnection) { Disconnect-ExchangeOnline -ConnectionId $script:OwnConnection -Confirm:$false -ErrorAction Stop }
        elseif ($script:DisconnectAll) { Disconnect-ExchangeOnline -Confirm:$false -ErrorAction Stop }
    } catch {
        Write-Warning "The session could not be closed: $(Protect-GatepostText -Text ([string]$_.Exception.Message))"
        Clear-GatepostError
    }
    $script:OwnConnection = ''
    $script:DisconnectAll = $false
}
#endregion Common

#region State
# Lets only the owner read a file or folder.
function Protect-GatepostPath {
    param([string]$Path)
    $item = Get-Item -LiteralPath $Path -Force
    if ([System.Environment]::OSVersion.Platform -ne [System.PlatformID]::Win32NT) {
        if ($null -eq $item.PSObject.Properties['UnixFileMode']) { Deny-GatepostRun -Reason "This PowerShell cannot restrict '$Path' to its owner: use 7.4 or later." }
        $mode = 'UserRead, UserWrite'
        if ($item.PSIsContainer) { $mode = 'UserRead, UserWrite, UserExecute' }
        $item.UnixFileMode = $mode
        return
    }
    $owner = [System.Security.Principal.WindowsIdentity]::GetCurrent().User
    if ($item.PSIsContainer) {
        $rights = New-Object -TypeName System.Security.AccessControl.DirectorySecurity
        $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList $owner, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow'
    } else {
        $rights = New-Object -TypeName System.Security.AccessControl.FileSecurity
        $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList $owner, 'FullControl', 'Allow'
    }
    $rights.SetAccessRuleProtection($true, $false)
    $rights.AddAccessRule($rule)
    if ($null -ne $item.PSObject.Methods['SetAccessControl']) { $item.SetAccessControl($rights) } else { [System.IO.FileSystemAclExtensions]::SetAccessControl($item, $rights) }
}

# A new file, restricted before anything stands in it.
function Write-GatepostFile {
    param([string]$Path, [byte[]]$Content)
    $script:Doing = "writing '$Path'"
    $stream = New-Object -TypeName System.IO.FileStream -ArgumentList $Path, ([System.IO.FileMode]::CreateNew)
    $stream.Dispose()
    Protect-GatepostPath -Path $Path
    [System.IO.File]::WriteAllBytes($Path, $Content)
}

# Reads the state of the tenant and writes it into a new folder; gives back the files. All is read before anything is written.
function Save-GatepostState {
    param([string]$Folder)
    $state = [ordered]@{}
    # From when and of whom: a copy of the files has another time.
    $state['Export'] = @([pscustomobject]@{ Time = [datetime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ', [System.Globalization.CultureInfo]::InvariantCulture); TenantId = $TenantId })
    $script:Doing = 'reading the inbound connectors'
    $state['InboundConnector'] = @(Get-InboundConnector -ErrorAction Stop)
    $script:Doing = 'reading the outbound connectors'
    $state['OutboundConnector'] = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop)
    $script:Doing = 'reading the transport rules'
    $state['TransportRule'] = @(Get-TransportRule -ErrorAction Stop)
    $script:Doing = 'reading the ARC configuration'
    $state['ArcConfig'] = @(Get-ArcConfig -ErrorAction Stop)
    $script:Doing = 'reading the accepted domains'
    $state['AcceptedDomain'] = @(Get-AcceptedDomain -ErrorAction Stop)
    $script:Doing = 'reading the organization configuration'
    $state['OrganizationConfig'] = @(Get-OrganizationConfig -ErrorAction Stop)
    $script:Doing = 'exporting the transport rule collection'
    $collection = @(Export-TransportRuleCollection -Confirm:$false -ErrorAction Stop)[0]
    $data = Get-GatepostProperty -Object $collection -Name 'FileData'
    if ($data -is [string]) { $data = [System.Convert]::FromBase64String($data) }

    $script:Doing = "making the folder '$Folder'"
    if (-not (Test-Path -LiteralPath $Folder -PathType Container)) {
        [void][System.IO.Directory]::CreateDirectory($Folder)
        Protect-GatepostPath -Path $Folder
    }
    foreach ($key in $state.Keys) {
        $path = [System.IO.Path]::Combine($Folder, "$key.json")
        if (Test-Path -LiteralPath $path) { Deny-GatepostRun -Reason "'$path' is already there: give another folder." }
    }
    $encoding = New-Object -TypeName System.Text.UTF8Encoding -ArgumentList $false
    foreach ($key in $state.Keys) {
        $path = [System.IO.Path]::Combine($Folder, "$key.json")
        $text = ConvertTo-Json -InputObject @($state[$key]) -Depth 6
        Write-GatepostFile -Path $path -Content $encoding.GetBytes($text + "`n")
        Write-GatepostResult -Type 'file' -Name $path -Action 'Created' -Message "$(@($state[$key]).Count) objects"
    }
    if ($null -ne $data) {
        $path = [System.IO.Path]::Combine($Folder, 'TransportRuleCollection.xml')
        Write-GatepostFile -Path $path -Content ([byte[]]$data)
        Write-GatepostResult -Type 'file' -Name $path -Action 'Created' -Message 'all rules, as Export-TransportRuleCollection gives them'
    }
}
#endregion State

#region Before
$script:StateSaved = $false

# Writes the state of the tenant into a folder before the first change of this run.
function Save-GatepostBefore {
    if ($script:StateSaved) { return }
    $was = $script:Doing
    $within = $PSScriptRoot
    if ($ExportFolder) { $within = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($ExportFolder) }
    $time = [datetime]::UtcNow.ToString('yyyyMMdd-HHmmss-fff', [System.Globalization.CultureInfo]::InvariantCulture)
    $folder = [System.IO.Path]::Combine($within, "state-before-$time")
    $files = @(Save-GatepostState -Folder $folder)
    Write-Verbose "The state before the first change is in '$folder' ($($files.Count) files, for their owner alone: the rules hold the values of the secret headers)."
    $script:StateSaved = $true
    $script:Doing = $was
}
#endregion Before

try {
    Connect-GatepostTenant
    $script:Doing = 'reading the ARC configuration'
    $configuration = @(Get-ArcConfig -ErrorAction Stop)
    $now = @()
    if ($configuration.Count -gt 0) {
        $now = @(Get-GatepostProperty -Object $configuration[0] -Name 'ArcTrustedSealers' | ForEach-Object { ([string]$_).Split(',') } | ForEach-Object { $_.Trim() } | Where-Object { $_ })
    }
    $next = @()
    if ($Remove) { $next = @($now | Where-Object { $Domain -notcontains $_ }) } else { $next = @($now) + @($Domain | Where-Object { $now -notcontains $_ } | Sort-Object -Unique) }
    $shown = $next -join ', '
    if ($next.Count -eq $now.Count) {
        Write-GatepostResult -Type 'ARC configuration' -Name 'Default' -Action 'Unchanged' -Message "trusted sealers: $shown"
    } else {
        $changes = @("ArcTrustedSealers: '$($now -join ', ')' -> '$shown'")
        $action = Get-GatepostHeld -Would 'WouldUpdate'
        # An empty list is written as one blank.
        if ($next.Count -eq 0) { $next = @(' ') }
        if ($PSCmdlet.ShouldProcess("ARC trusted sealers of tenant $TenantId", $changes[0])) {
            $script:Doing = 'writing the list of ARC trusted sealers'
            Save-GatepostBefore
            Set-ArcConfig -Identity 'Default' -ArcTrustedSealers $next -Confirm:$false -ErrorAction Stop
            $action = 'Updated'
        }
        Write-GatepostResult -Type 'ARC configuration' -Name 'Default' -Action $action -Changes $changes
    }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
